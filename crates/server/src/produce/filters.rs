//! What the ffmpeg that was found cannot do, as far as films are converted differently because of it. Asked once, when it matters first.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::OnceCell;

use crate::cage::{Limits, Reach};
use crate::spawner::Spawner;

/// How long the answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of it that are read.
const LONGEST: u64 = 1 << 20;

/// What is known of one ffmpeg. Cheap to clone; clones share what they learn.
#[derive(Debug, Clone, Default)]
pub struct Filters(Arc<OnceCell<bool>>);

impl Filters {
    /// Whether it maps tones with `zscale`. One that does not answer is taken for whole: it will say what is wrong when it converts.
    pub async fn has_zscale(&self, spawner: &Spawner, ffmpeg: &Path) -> bool {
        let ask = async || {
            let listed = tokio::time::timeout(ANSWER, list(spawner, ffmpeg)).await.ok().and_then(Result::ok).unwrap_or_default();
            let whole = listed.is_empty() || ["zscale", "tonemap"].iter().all(|name| lists(&listed, name));
            if !whole {
                tracing::info!("this ffmpeg lacks zscale: tones of HDR films are mapped with tables");
            }
            whole
        };
        *self.0.get_or_init(ask).await
    }
}

async fn list(spawner: &Spawner, ffmpeg: &Path) -> std::io::Result<String> {
    let mut child = spawner.spawn(Limits::PROBE, &Reach::nothing(), ffmpeg, &["-hide_banner".to_owned(), "-filters".to_owned()]).await?;
    let mut said = Vec::new();
    if let Some(pipe) = child.take_stdout() {
        pipe.take(LONGEST).read_to_end(&mut said).await?;
    }
    let ended = child.wait().await?;
    Ok(if ended.status.success() { String::from_utf8_lossy(&said).into_owned() } else { String::new() })
}

/// Whether a filter stands in the list: ` TSC zscale  V->V  Apply…`.
fn lists(listed: &str, name: &str) -> bool {
    listed.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.nth(1) == Some(name) && words.next().is_some_and(|ways| ways.contains("->"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_named_in_its_column() {
        let listed = "Filters:\n  T.. = Timeline support\n ... abench            A->A       Benchmark zscale.\n .SC zscale            V->V       Apply.";
        assert!(lists(listed, "zscale") && lists(listed, "abench") && !lists(listed, "=") && !lists(listed, "tonemap"));
    }
}
