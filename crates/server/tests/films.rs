//! The way of a magnet, seen from outside: the real program, a real swarm, and films of every make that comes along.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;
#[path = "support/swarm.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod swarm;

use serde_json::json;
use server::TestServer;
use swarm::{Swarm, SwarmOptions};

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_and_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = folder.path().join("film.mp4");
    let made = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=320x180:d=9", "-f", "lavfi", "-i", "sine=d=9", "-g", "50"])
        .arg(&film)
        .status()
        .expect("ffmpeg");
    assert!(made.success());
    let swarm = Swarm::seed(&film, SwarmOptions::default()).await;
    let mut server = TestServer::open().await;
    let ready = server.play(&swarm.link(), json!({})).await;
    let master = server.fetch(ready["streamUrl"].as_str().expect("its URL")).await;
    assert!(master.starts_with(b"#EXTM3U"));
    let id = ready["streamId"].as_str().expect("its id").to_owned();
    server.kill_9();
    server.restart().await;
    server.until_ready(&id).await;
    assert_eq!(server.end().expect("it ran").code(), Some(0));
}
