//! Makes sure that there is a folder of pages to embed, and that the program is built anew when they were.
//!
//! Without the pages (nobody ran the build of `ui/`) the program is whole but for them, and says so where they would be.

fn main() {
    let pages = "../../ui/dist";
    // A folder that is missing could not be watched. Where it cannot be made, it is there already or nothing can be embedded.
    std::fs::create_dir_all(pages).ok();
    println!("cargo:rerun-if-changed={pages}");
    println!("cargo:rerun-if-changed=build.rs");
}
