//! What a program in the cage cannot do. Python stands in for an ffmpeg that a hostile film has taken over: it may try anything.
//!
//! Each attempt is made twice, outside first, where it has to succeed: so what fails inside, fails because of the cage. Where a kernel
//! lacks a wall, what that wall is for is left out and said.

#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use balcony_server::cage::{EXIT_UNCAGED, Limits, Reach, Report, command_line, trial_command_line};
use balcony_server::loopback::Loopback;
use balcony_server::source::Source;
use balcony_server::spawner::{Child, Spawner};
use balcony_server::tasks::Tasks;
use tokio::io::AsyncReadExt;

const EXE: &str = env!("CARGO_BIN_EXE_balcony-server");
const PYTHON: &str = "/usr/bin/python3";

/// Where attempts are made, and what they are made on.
struct Ground {
    folder: tempfile::TempDir,
    /// The port that is allowed inside.
    film: Listener,
    /// One that is not.
    other: Listener,
    udp: UdpSocket,
}

/// Counts who comes.
struct Listener {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Listener {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let (address, calls) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
        let counted = calls.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Self { address, calls }
    }

    fn calls(&self) -> usize {
        // Whoever was refused at once would be counted by now.
        std::thread::sleep(Duration::from_millis(200));
        self.calls.load(Ordering::SeqCst)
    }
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("cage-test-").tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), "a token").expect("written");
        std::fs::write(folder.path().join("precious"), "kept").expect("written");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        udp.set_nonblocking(true).expect("set");
        Self { folder, film: Listener::open(), other: Listener::open(), udp }
    }

    fn words(&self) -> Vec<String> {
        let port = |address: SocketAddr| address.port().to_string();
        let folder = self.folder.path().to_str().expect("text").to_owned();
        let udp = self.udp.local_addr().expect("an address");
        vec![folder, port(self.film.address), port(self.other.address), port(udp), std::process::id().to_string()]
    }

    /// Runs a line of Python outside or inside; its code tells: 0 done, 1 not, and why.
    fn attempt(&self, inside: bool, line: &str) -> (bool, String) {
        let script = format!("{PRELUDE}\nattempt(lambda: {line})");
        let mut words: Vec<OsString> = vec!["-c".into(), script.into()];
        words.extend(self.words().into_iter().map(OsString::from));
        let mut command = if inside {
            let reach = Reach::port(self.film.address.port());
            let mut command = Command::new(EXE);
            command.args(command_line(std::process::id(), Limits { files: 128, ..Limits::PROBE }, &reach, PYTHON.into(), words));
            command
        } else {
            let mut command = Command::new(PYTHON);
            command.args(words);
            command
        };
        let output = command.stdin(Stdio::null()).output().expect("run");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{line}: {said}");
        (output.status.success(), said)
    }

    fn possible(&self, line: &str) {
        let (done, said) = self.attempt(false, line);
        assert!(done, "outside the cage it works: {line}: {said}");
    }

    /// Possible outside and impossible inside, because it is not permitted.
    fn forbidden(&self, line: &str) {
        self.possible(line);
        let (done, said) = self.attempt(true, line);
        assert!(!done && (said.contains("Permission denied") || said.contains("not permitted")), "inside the cage: {line}: {said}");
    }

    /// Possible inside: an ffmpeg needs it.
    fn allowed(&self, line: &str) {
        let (done, said) = self.attempt(true, line);
        assert!(done, "inside the cage it works: {line}: {said}");
    }
}

/// What attempts have at hand. System calls that Python has no words for are made by number, as an intruder would.
const PRELUDE: &str = r#"
import ctypes, os, platform, resource, signal, socket, sys, threading, time
folder, film, other, udp, server = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
def call(on_x86, elsewhere, *args):
    result = libc.syscall(ctypes.c_long(on_x86 if x86 else elsewhere), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def child(run):
    pid = run()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
def connect(port, family=socket.AF_INET, host="127.0.0.1", kind=socket.SOCK_STREAM, protocol=0):
    made = socket.socket(family, kind, protocol)
    made.settimeout(5)
    made.connect((host, port))
def say(kind, protocol=0):
    socket.socket(socket.AF_INET, kind, protocol).sendto(b"hello", ("127.0.0.1", udp))
def in_a_thread(run):
    errors = []
    def body():
        try:
            run()
        except OSError as error:
            errors.append(error)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
def attempt(what):
    try:
        what()
    except OSError as error:
        print(error)
        sys.exit(1)
    sys.exit(0)
"#;

fn report() -> Report {
    let output = Command::new(EXE).args(trial_command_line(std::process::id())).output().expect("run");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Report::read(&said).unwrap_or_else(|| panic!("no report: {said}"))
}

/// Whether this kernel has the wall that a test is about.
fn holds(what: &str, which: fn(&Report) -> bool) -> bool {
    let report = report();
    if !which(&report) {
        eprintln!("skipped, this kernel has no wall for {what}: {report}");
    }
    which(&report)
}

#[test]
fn files_of_others_cannot_be_read() {
    if !holds("files", |report| report.files) {
        return;
    }
    let ground = Ground::new();
    for line in [
        "open('/etc/passwd').read()",
        "open('/etc/hostname').read()",
        "open(folder + '/secret').read()",
        "os.listdir(folder)",
        "os.listdir('/')",
        "os.listdir('/home')",
        "open(f'/proc/{server}/environ', 'rb').read()",
        "open(f'/proc/{server}/cmdline', 'rb').read()",
        "open(f'/proc/{server}/maps').read()",
        "os.open('/proc/self/root/etc/passwd', os.O_RDONLY)",
        "os.open('/usr/lib/../../etc/passwd', os.O_RDONLY)",
        "in_a_thread(lambda: open('/etc/passwd').read())",
    ] {
        ground.forbidden(line);
    }
    if Path::new("/etc/shadow").metadata().is_ok_and(|shadow| shadow.uid() == rustix::process::getuid().as_raw()) {
        ground.forbidden("open('/etc/shadow').read()");
    }
    for line in ["open('/proc/self/status').read()", "os.listdir('/usr/lib')", "open('/dev/urandom', 'rb').read(1)"] {
        ground.allowed(line);
    }
}

#[test]
fn nothing_can_be_written() {
    if !holds("files", |report| report.files) || !holds("system calls", |report| report.calls) {
        return;
    }
    let ground = Ground::new();
    for (n, line) in [
        "open(folder + '/new{n}', 'w')",
        "os.open('/tmp/cage-test-new-{n}-' + str(server), os.O_WRONLY | os.O_CREAT)",
        "os.open('/tmp', os.O_TMPFILE | os.O_RDWR)",
        "open(folder + '/precious', 'a').write('more')",
        "open(folder + '/precious', 'r+')",
        "os.truncate(folder + '/precious', 1)",
        "os.mkdir(folder + '/folder{n}')",
        "os.symlink('/etc', folder + '/link{n}')",
        "os.link(folder + '/secret', folder + '/hard{n}')",
        "os.mkfifo(folder + '/fifo{n}')",
        "os.rename(folder + '/secret', folder + '/secret')",
        "os.chmod(folder + '/secret', 0o600)",
        "os.chown(folder + '/secret', -1, -1)",
        "os.utime(folder + '/secret')",
        "os.setxattr(folder + '/secret', 'user.x', b'y')",
        "os.memfd_create('name')",
        "open('/dev/full', 'wb')",
    ]
    .into_iter()
    .enumerate()
    {
        ground.forbidden(&line.replace("{n}", &n.to_string()));
        let _ = std::fs::remove_file(format!("/tmp/cage-test-new-{n}-{}", std::process::id()));
    }
    // Last, because it works outside.
    ground.forbidden("os.unlink(folder + '/precious') or open(folder + '/precious', 'w')");
    ground.allowed("open('/dev/null', 'wb').write(b'nothing')");
}

#[test]
fn connections_lead_to_the_film_and_nowhere_else() {
    if !holds("the network", |report| report.network) || !holds("system calls", |report| report.calls) {
        return;
    }
    let ground = Ground::new();
    ground.possible("connect(other)");
    let outside = ground.other.calls();
    assert_eq!(outside, 1);
    for line in [
        "connect(other)",
        "in_a_thread(lambda: connect(other))",
        "connect(other, socket.AF_INET6, '::ffff:127.0.0.1')",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM).sendto(b'x', 0x20000000, ('127.0.0.1', other))",
    ] {
        let (done, said) = ground.attempt(true, line);
        assert!(!done && (said.contains("Permission denied") || said.contains("not permitted")), "{line}: {said}");
    }
    assert_eq!(ground.other.calls(), outside, "nobody came from inside");
    ground.allowed("connect(film)");
    assert_eq!(ground.film.calls(), 1);
    // Nobody is let in, neither.
    ground.forbidden("socket.socket().bind(('127.0.0.1', 0))");
    ground.forbidden("socket.socket().listen()");
}

#[test]
fn sockets_are_tcp_and_nothing_else() {
    if !holds("system calls", |report| report.calls) {
        return;
    }
    let ground = Ground::new();
    ground.forbidden("say(socket.SOCK_DGRAM)");
    let mut buffer = [0; 16];
    assert_eq!(ground.udp.recv(&mut buffer).expect("from outside"), 5);
    assert!(ground.udp.recv(&mut buffer).is_err(), "and none from inside");
    for line in [
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    ] {
        ground.forbidden(line);
    }
    // Multipath TCP is not TCP to Landlock; not every kernel has it.
    if ground.attempt(false, "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)").0 {
        ground.forbidden("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)");
    }
}

#[test]
fn no_process_can_be_started_and_no_other_one_touched() {
    if !holds("system calls", |report| report.calls) || !holds("files", |report| report.files) {
        return;
    }
    let ground = Ground::new();
    for line in [
        "child(os.fork)",
        "child(lambda: call(56, 220, signal.SIGCHLD, 0, 0, 0, 0))",
        "in_a_thread(lambda: child(os.fork))",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/sh', ['sh', '-c', 'exit 0'])",
        "os.execv('/bin/true', ['true'])",
        "os.kill(server, 0)",
        "os.kill(0, 0)",
        "call(234, 131, server, server, 0)",
        "call(434, 434, server, 0)",
        "resource.prlimit(server, resource.RLIMIT_NOFILE)",
        "call(157, 167, 1, 0)",
        "os.setpgid(0, 0)",
        "call(135, 92, 0xffffffff)",
    ] {
        ground.forbidden(line);
    }
    // Tracing the server (PTRACE_SEIZE), where a parent may be traced at all.
    if ground.attempt(false, "call(101, 117, 0x4206, server, 0, 0)").0 {
        ground.forbidden("call(101, 117, 0x4206, server, 0, 0)");
    }
    for line in ["in_a_thread(lambda: None)", "os.kill(os.getpid(), 0)", "signal.raise_signal(signal.SIGCHLD)", "os.nice(1)"] {
        ground.allowed(line);
    }
    // Calls whose arguments no filter can see, and calls younger than the list, do not exist.
    for line in ["call(435, 435, 0, 0)", "call(437, 437, 0, 0, 0, 0)", "call(469, 469, 0, 0, 0, 0, 0)", "call(9999, 9999)"] {
        let (done, said) = ground.attempt(true, line);
        assert!(!done && said.contains("not implemented"), "{line}: {said}");
    }
}

#[test]
fn no_privileges_are_left() {
    let ground = Ground::new();
    let said = ground.attempt(true, "print(*[line for line in open('/proc/self/status') if line.startswith('Cap')])").1;
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(said.contains(&format!("{set}:\t0000000000000000")), "{said}");
    }
    assert!(said.contains("CapBnd"), "{said}");
}

fn spawner() -> Spawner {
    Spawner::start(PathBuf::from(EXE)).expect("a thread")
}

async fn all_of(child: &mut Child) -> String {
    let mut said = String::new();
    child.take_stdout().expect("once").read_to_string(&mut said).await.expect("text");
    said
}

#[tokio::test]
async fn one_folder_may_be_written_to_where_that_is_the_task() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for folder in [&ours, &theirs] {
        std::fs::create_dir(folder).expect("made");
    }
    let script = "import os, sys\nfor to in sys.argv[1:]:\n  try: open(to, 'w').write('x'); os.rename(to, to + '2'); print('yes')\n  except OSError: print('no')";
    let args = ["-c", script, ours.join("a").to_str().expect("text"), theirs.join("a").to_str().expect("text")].map(str::to_owned);
    let reach = Reach::folder(ours.clone());
    let mut child = spawner().spawn(Limits::SAMPLE, &reach, Path::new(PYTHON), &args).await.expect("started");
    let outside = if report().files { "no" } else { "yes" };
    assert_eq!(all_of(&mut child).await.split_whitespace().collect::<Vec<_>>(), ["yes", outside]);
    assert!(ours.join("a2").exists());
}

#[tokio::test]
async fn what_holds_is_told() {
    let spawner = spawner();
    let told = spawner.report().await.expect("a report");
    assert_eq!((told, told.is_whole()), (report(), told.missing().is_empty()));
    assert_eq!(spawner.report().await.expect("the same"), told);
    // The kernel's own word on what it has.
    let kernel = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    assert_eq!(told.calls, kernel.contains("errno"));
    assert!(told.network == (told.landlock >= 4) && told.files == (told.landlock >= 1), "{told}");
}

/// A wrapper script in the place of ffmpeg may become ffmpeg: and is in the cage as it.
#[tokio::test]
async fn a_wrapper_runs_in_the_cage_too() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let wrapper = folder.path().join("ffmpeg");
    std::fs::write(&wrapper, "#!/bin/sh\nexec /usr/bin/python3 -c \"$1\"\n").expect("written");
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let script = "try: print(open('/etc/passwd').read())\nexcept OSError: print('refused')";
    let mut child = spawner().spawn(Limits::PROBE, &Reach::nothing(), &wrapper, &[script]).await.expect("started");
    let (said, ended) = (all_of(&mut child).await, child.wait().await.expect("ended"));
    assert_ne!(ended.status.code(), Some(EXIT_UNCAGED), "{}", ended.stderr);
    assert_eq!(said.trim() == "refused", report().files, "{said} {}", ended.stderr);
}

/// Bytes that a plain request for `url` gets, by a process of its own.
const FETCH: &str = "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1]).read().decode())";

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_address_opens_nothing_and_dies_with_the_child() {
    let mut film = tempfile::NamedTempFile::new().expect("a file");
    film.write_all(b"bytes of the film").expect("written");
    let tasks = Tasks::new();
    let loopback = Loopback::start(&tasks).await.expect("listening");
    if !loopback.knows_its_readers().await {
        eprintln!("skipped, this system does not tell who holds a connection");
        return;
    }
    let lease = loopback.lease(Source::local(film.path()).expect("opened")).expect("leased");
    // The child reads the film, waits to be told by a signal, and reads it again.
    let script = format!("{FETCH}\nsys.stdout.flush()\nimport time\ntime.sleep(600)");
    let args = ["-c".to_owned(), script, lease.url()];
    let spawner = spawner();
    let mut child = spawner.spawn(Limits::PROBE, &Reach::port(lease.port()), Path::new(PYTHON), &args).await.expect("started");
    let pid = child.id().expect("running");
    lease.give_to(pid);
    let mut stdout = child.take_stdout().expect("once");
    let mut first = [0; 17];
    stdout.read_exact(&mut first).await.expect("the film");
    assert_eq!(&first, b"bytes of the film", "the child itself is answered");

    let mut line = String::new();
    std::fs::File::open(format!("/proc/{pid}/cmdline")).expect("open to all").read_to_string(&mut line).expect("text");
    let stolen = line.split('\0').find(|word| word.starts_with("http://")).expect("the address").to_owned();
    assert_eq!(stolen, lease.url());
    let thief = || {
        let output = Command::new(PYTHON).args(["-c", FETCH, &stolen]).output().expect("run");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let said = thief();
    assert!(said.contains("404") && !said.contains("bytes of the film"), "a thief: {said}");
    assert_eq!(reqwest::get(&stolen).await.expect("an answer").status().as_u16(), 404, "not even the server itself");

    child.kill();
    child.wait().await.expect("ended");
    assert!(thief().contains("404"), "the child is gone, its lease is not yet");
    drop(lease);
    assert!(thief().contains("404"));
    tasks.end(Duration::from_secs(5)).await;
}

/// The price of the cage at each start of ffmpeg. Not asserted closely: a busy machine is no failure.
#[test]
fn the_cage_is_quick() {
    let median = |command: &mut dyn FnMut() -> Command| {
        let mut times: Vec<Duration> = (0..20)
            .map(|_| {
                let begun = Instant::now();
                assert!(command().status().expect("run").success());
                begun.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let bare = median(&mut || Command::new("/bin/true"));
    let caged = median(&mut || {
        let mut command = Command::new(EXE);
        command.args(command_line(std::process::id(), Limits::ENCODE, &Reach::port(40_000), "/bin/true".into(), Vec::new()));
        command
    });
    eprintln!("/bin/true takes {bare:?}, in the cage {caged:?}");
    assert!(caged < Duration::from_secs(2), "{caged:?}");
}
