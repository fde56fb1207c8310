//! Children: started in the cage, ended with whoever started them. What the cage forbids is tried in `cage.rs`.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use balcony_server::cage::{EXIT_UNCAGED, Limits, Reach};
use balcony_server::spawner::Spawner;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;

const EXE: &str = env!("CARGO_BIN_EXE_balcony-server");

fn spawner() -> Spawner {
    Spawner::start(PathBuf::from(EXE)).expect("a thread")
}

fn shell(script: &str) -> (&'static Path, Vec<String>) {
    (Path::new("/bin/sh"), vec!["-c".into(), script.into()])
}

fn python(script: &str) -> (&'static Path, Vec<String>) {
    (Path::new("/usr/bin/python3"), vec!["-c".into(), script.into()])
}

fn alive(pid: i32) -> bool {
    // A zombie that nobody collects yet has no command line any more.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
}

fn gone_within(pid: i32, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if !alive(pid) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

async fn first_line(child: &mut balcony_server::spawner::Child) -> String {
    let mut stdout = child.take_stdout().expect("once");
    let mut line = Vec::new();
    while let Ok(byte) = stdout.read_u8().await
        && byte != b'\n'
    {
        line.push(byte);
    }
    String::from_utf8(line).expect("text")
}

#[tokio::test]
async fn a_child_runs_within_its_limits() {
    let script = r#"
import os, resource, sys
limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] for name in ["NOFILE", "CORE", "FSIZE", "CPU", "AS"]]
privileges = [line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")]
print(*limits, os.nice(0), *privileges, os.getpgid(0), os.getpid(), flush=True)
print("oops", file=sys.stderr)
sys.exit(3)"#;
    let (program, args) = python(script);
    let mut child = spawner().spawn(Limits::PROBE, &Reach::nothing(), program, &args).await.expect("started");
    let pid = child.id().expect("running");
    let nice: i32 = String::from_utf8(Command::new("nice").output().expect("nice").stdout).expect("text").trim().parse().expect("a number");
    let line = first_line(&mut child).await;
    let expected = format!("64 0 0 30 {} {} 1 {pid} {pid}", 4_u64 << 30, (nice + 5).min(19));
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
    let ended = child.wait().await.expect("ended");
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(3), "oops"));
    assert_eq!(child.id(), None);
    assert_eq!(child.wait().await.expect("ended"), ended, "asking again gives the same");
}

#[tokio::test]
async fn a_child_gets_no_secret_from_the_environment() {
    let (program, args) = python("import os; print(*sorted(os.environ))");
    let mut child = spawner().spawn(Limits::ENCODE, &Reach::nothing(), program, &args).await.expect("started");
    let names = first_line(&mut child).await;
    for name in names.split_whitespace() {
        assert!(
            ["LANG", "LC_CTYPE", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "LD_LIBRARY_PATH", "TMPDIR"].contains(&name)
                || name.contains("VISIBLE"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn only_the_end_of_what_it_says_is_kept() {
    let (program, args) = shell("i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done");
    let ended = spawner().spawn(Limits::ENCODE, &Reach::nothing(), program, &args).await.expect("started").wait().await.expect("ended");
    assert!(ended.stderr.len() <= 4096 && ended.stderr.ends_with("line 1999"), "{}", ended.stderr);
}

#[tokio::test]
async fn dropping_a_child_ends_its_whole_group() {
    let (program, args) = python("import time; print('up', flush=True); time.sleep(60)");
    let mut child = spawner().spawn(Limits::ENCODE, &Reach::nothing(), program, &args).await.expect("started");
    let leader = child.id().expect("running") as i32;
    assert_eq!(first_line(&mut child).await, "up");
    // Where there is no seccomp, ffmpeg may start others; here the cage forbids it, so somebody else joins its group.
    let mut below = Command::new("sleep").arg("60").process_group(leader).spawn().expect("a member of the group");
    assert!(alive(leader), "the child runs");
    let begun = Instant::now();
    while !alive(below.id() as i32) {
        assert!(begun.elapsed() < Duration::from_secs(10), "its neighbour runs: {:?}", below.try_wait());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(child);
    assert!(gone_within(leader, Duration::from_secs(1)) && gone_within(below.id() as i32, Duration::from_secs(1)));
    below.wait().expect("collected");
}

#[tokio::test]
async fn a_child_outlives_the_task_that_asked_for_it() {
    let spawner = spawner();
    let (program, args) = python("import time; time.sleep(0.5); print('done')");
    // A blocking thread of tokio asks, and ends: had it forked, the kernel would kill the child with it.
    let handle = tokio::runtime::Handle::current();
    let asked = std::thread::spawn(move || {
        handle.block_on(async { spawner.spawn(Limits::ENCODE, &Reach::nothing(), program, &args).await.map(|child| (child, spawner)) })
    });
    let (mut child, _spawner) = asked.join().expect("joined").expect("started");
    assert_eq!(first_line(&mut child).await, "done");
}

#[tokio::test]
async fn what_cannot_be_started_says_so() {
    let mut child =
        spawner().spawn(Limits::ENCODE, &Reach::nothing(), Path::new("/nowhere/ffmpeg"), &[""; 0]).await.expect("the cage starts");
    let ended = child.wait().await.expect("ended");
    assert_eq!(ended.status.code(), Some(EXIT_UNCAGED));
    assert!(ended.stderr.contains("No such file"), "{}", ended.stderr);
    let spawner = Spawner::start(PathBuf::from("/nowhere/balcony-server")).expect("a thread");
    assert!(spawner.spawn(Limits::ENCODE, &Reach::nothing(), Path::new("/bin/true"), &[""; 0]).await.is_err());
}

#[test]
fn the_cage_stays_shut_for_strangers() {
    for words in [
        vec!["cage"],
        vec!["cage", "trial"],
        vec!["cage", "trial", "1"],
        vec!["cage", "1", "0", "1000000000", "0", "64", "0", "0", "--", "/bin/echo", "hello"],
    ] {
        let output = Command::new(EXE).args(&words).output().expect("run");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(EXIT_UNCAGED), 0), "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("cage: "), "{words:?}");
    }
}

/// The promise under `kill -9`: this test starts itself again as a server that has a child, and kills it.
#[test]
fn no_child_survives_the_server() {
    if std::env::var_os("CHILDREN_TEST_SERVER").is_some() {
        serve_until_killed();
    }
    let exe = std::env::current_exe().expect("this test");
    let mut server = Command::new(exe)
        .args(["--exact", "no_child_survives_the_server", "--nocapture", "--test-threads", "1"])
        .env("CHILDREN_TEST_SERVER", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let child: i32 = lines
        .map_while(Result::ok)
        .find_map(|line| line.split("child ").nth(1).and_then(|rest| rest.trim().parse().ok()))
        .expect("the server tells its child");
    assert!(alive(child));
    kill(Pid::from_raw(server.id() as i32), Signal::SIGKILL).expect("killed");
    let gone = gone_within(child, Duration::from_secs(1));
    server.wait().expect("collected");
    assert!(gone, "process {child} survived");
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn serve_until_killed() -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let args = "-loglevel error -nostdin -re -f lavfi -i testsrc -f null -".split(' ').map(str::to_owned).collect::<Vec<_>>();
        let ffmpeg = std::env::var_os("FFMPEG_BIN").map_or_else(|| PathBuf::from("ffmpeg"), PathBuf::from);
        let child = spawner().spawn(Limits::ENCODE, &Reach::nothing(), &ffmpeg, &args).await.expect("started");
        // The cage needs a moment to become ffmpeg.
        tokio::time::sleep(Duration::from_millis(300)).await;
        println!("child {}", child.id().expect("running"));
        std::future::pending::<()>().await;
    });
    unreachable!("it waits for ever")
}
