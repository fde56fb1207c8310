//! `balcony`: a window over the server of one house.
//!
//! Thin on purpose: it shows the bundled page and nothing here is worth a unit test. What the page knows it
//! asks over HTTP like every other client, so there is no command of Tauri's own.

#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

use tauri::{WebviewUrl, WebviewWindowBuilder};

fn main() -> tauri::Result<()> {
    tauri::Builder::default()
        .setup(|app| {
            WebviewWindowBuilder::new(app, "main", WebviewUrl::default())
                .title("Balcony")
                .inner_size(1080.0, 720.0)
                .min_inner_size(360.0, 480.0)
                .build()?;
            Ok(())
        })
        .run(tauri::generate_context!())
}
