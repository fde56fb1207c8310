//! The server as a service of systemd: the unit that lies in packaging, and what systemd is told.

#[path = "support/server.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod server;

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use server::TestServer;

const EXE: &str = env!("CARGO_BIN_EXE_balcony-server");
const INSTALLED: &str = "/usr/local/bin/balcony-server";

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd/balcony-server.service");
    std::fs::read_to_string(path).expect("the unit")
}

/// The arguments with which systemd would start it.
fn arguments() -> Vec<String> {
    let unit = unit();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("what is started");
    let mut words = line.split_whitespace().map(str::to_owned);
    assert_eq!(words.next().as_deref(), Some(INSTALLED));
    words.collect()
}

/// Without a complaint, by the judgement of systemd itself. It wants to see the program where the unit says that it is.
#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("balcony-server.service");
    std::fs::write(&path, unit().replace(INSTALLED, EXE)).expect("written");
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&path).output().expect("systemd-analyze");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let (taken, said) = analyze(&["verify"]);
    assert!(taken && said.trim().is_empty(), "{said}");
    // The proof that it would complain.
    std::fs::write(&path, unit().replace(INSTALLED, EXE) + "NoSuchThing=yes\n").expect("written");
    let (_, said) = analyze(&["verify"]);
    assert!(said.contains("NoSuchThing"), "{said}");
    std::fs::write(&path, unit().replace(INSTALLED, EXE)).expect("written");
    let (_, said) = analyze(&["security", "--offline=true", "--no-pager"]);
    let exposure = said.split("Overall exposure level for balcony-server.service: ").nth(1).expect("a judgement");
    let level: f64 = exposure.split_whitespace().next().and_then(|level| level.parse().ok()).expect("a number");
    assert!(level < 2.5, "it is exposed at level {level}:\n{said}");
}

/// What the cage around ffmpeg is made of is not forbidden: else nothing could be converted, or not safely.
#[test]
fn the_unit_leaves_the_cage_its_system_calls() {
    let mut allowed = std::collections::BTreeSet::new();
    let unit = unit();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (forbids, line) = line.strip_prefix('~').map_or((false, line), |line| (true, line));
        for call in line.split_whitespace().flat_map(calls) {
            if forbids {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    let needed = ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "capset", "setpriority", "prctl"];
    for call in needed {
        assert!(allowed.contains(call), "{call} is forbidden");
    }
    for call in ["mount", "init_module", "ptrace", "setuid", "reboot"] {
        assert!(!allowed.contains(call), "{call} is allowed");
    }
}

/// The system calls behind a word of a filter; `@` begins the name of a group, which may hold others.
fn calls(word: &str) -> Vec<String> {
    if !word.starts_with('@') {
        return vec![word.to_owned()];
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]).output().expect("systemd-analyze");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(calls).collect()
}

/// What the unit starts is a command line that the program takes, on the folders that the unit gives it.
#[test]
fn the_program_takes_the_units_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = |word: &String| -> String {
        let path: PathBuf = word.into();
        path.strip_prefix("/").map_or_else(|_| word.clone(), |inside| folder.path().join(inside).display().to_string())
    };
    let mut arguments: Vec<_> = arguments().iter().map(here).collect();
    assert_eq!(arguments.first().map(String::as_str), Some("serve"));
    // The same flags with a command that ends.
    arguments[0] = "doctor".to_owned();
    let output =
        Command::new(EXE).args(&arguments).args(["--http-port", "0", "--https-port", "0", "--bind", "127.0.0.1"]).output().expect("run");
    assert_ne!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let unit = unit();
    for (directive, path) in [("StateDirectory", "/var/lib/balcony"), ("CacheDirectory", "/var/cache/balcony")] {
        let name = path.rsplit('/').next().expect("a name");
        assert!(unit.contains(&format!("\n{directive}={name}\n")) && unit.contains(&format!(" {path}")), "{directive}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_when_it_listens_and_when_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let hear = || {
        let mut heard = [0; 64];
        let len = socket.recv(&mut heard).expect("a word");
        String::from_utf8_lossy(&heard[..len]).into_owned()
    };
    let mut server = TestServer::with(&[], &[("NOTIFY_SOCKET", path.to_str().expect("text"))]).await;
    assert_eq!(hear(), "READY=1");
    assert_eq!(server.get("/healthz").await.status, 200);
    assert!(server.end().is_some_and(|status| status.success()));
    assert_eq!(hear(), "STOPPING=1");
    assert!(unit().contains("\nType=notify\n"));
}
