//! Starts child processes, in the cage, and owns their end.
//!
//! The signal that ends a child with its parent is tied to the *thread* that forked it, and tokio's threads come and go. So one thread
//! that lives as long as the server forks all children. A [`Child`] that is dropped is killed with its whole group, and what it last
//! said on standard error is kept, bounded, for the log.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use ffmpeg_sidecar::command::FfmpegCommand;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::ChildStdout;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::JoinHandle;

use crate::cage::{self, Limits, Reach, Report};

/// Bytes of standard error that are kept of a child.
const TAIL: usize = 4096;

/// How long the end of standard error is waited for once a child has ended (a grandchild may hold it open).
const TAIL_WAIT: Duration = Duration::from_millis(500);

/// A trial of the cage takes a hundredth of a second.
const TRIAL_WAIT: Duration = Duration::from_secs(20);

/// Environment that a child gets, of what the server has: nothing that could be a secret.
const ENVIRONMENT: [&str; 8] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "LIBVA_DRIVER_NAME",
    "LIBVA_DRIVERS_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "TMPDIR",
];

/// The one place from which children are started. Cheap to clone; its thread ends with the last clone and the last child.
#[derive(Clone)]
pub struct Spawner {
    orders: mpsc::Sender<Order>,
    exe: Arc<Path>,
    report: Arc<OnceCell<Report>>,
}

struct Order {
    command: std::process::Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<tokio::process::Child>>,
}

impl Spawner {
    /// Starts the thread. `exe` is the program that knows the hidden command `cage`: our own binary.
    pub fn start(exe: PathBuf) -> io::Result<Self> {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::Builder::new().name("children".into()).spawn(move || {
            while let Ok(order) = queue.recv() {
                let _context = order.runtime.enter();
                let spawned = tokio::process::Command::from(order.command).kill_on_drop(true).spawn();
                // Nobody waits any more: the child is dropped here, which kills it.
                drop(order.reply.send(spawned));
            }
        })?;
        Ok(Self { orders, exe: exe.into(), report: Arc::default() })
    }

    /// Starts `program` in the cage, with standard output and standard error on pipes and nothing to read. Beyond itself and its
    /// libraries it has what `reach` says.
    ///
    /// # Errors
    /// When no process can be started. A program that cannot is an end of the child ([`cage::EXIT_UNCAGED`]).
    pub async fn spawn(&self, limits: Limits, reach: &Reach, program: &Path, args: &[impl AsRef<OsStr>]) -> io::Result<Child> {
        let args = args.iter().map(|word| word.as_ref().to_owned()).collect();
        self.start_with(cage::command_line(std::process::id(), limits, reach, program.as_os_str().to_owned(), args)).await
    }

    /// What of the cage holds on this machine: tried once, by a child of its own.
    ///
    /// # Errors
    /// When the trial could not be made.
    pub async fn report(&self) -> io::Result<Report> {
        self.report.get_or_try_init(|| self.trial()).await.copied()
    }

    async fn trial(&self) -> io::Result<Report> {
        let mut child = self.start_with(cage::trial_command_line(std::process::id())).await?;
        let pipe = child.take_stdout().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut line = String::new();
        tokio::time::timeout(TRIAL_WAIT, pipe.take(200).read_to_string(&mut line)).await??;
        Report::read(&line).ok_or_else(|| io::Error::other(format!("the trial said nothing; {}", child.stderr())))
    }

    async fn start_with(&self, words: Vec<OsString>) -> io::Result<Child> {
        let (reply, answer) = oneshot::channel();
        let order = Order { command: self.command(words), runtime: Handle::current(), reply };
        self.orders.send(order).map_err(|_| io::Error::other("the thread that starts children has ended"))?;
        let child = answer.await.map_err(|_| io::Error::other("the thread that starts children has ended"))??;
        Child::new(child, self.clone())
    }

    fn command(&self, words: Vec<OsString>) -> std::process::Command {
        let mut builder = FfmpegCommand::from(std::process::Command::new(&*self.exe));
        builder.create_no_window().args(words);
        let mut command = std::process::Command::from(builder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).env_clear().env("LANG", "C");
        command.envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// The last that it said on standard error, at most 4 KB.
    pub stderr: String,
}

/// A running child process, the leader of a group of its own. Dropping it kills the group; the kernel's remains are collected by tokio.
pub struct Child {
    inner: tokio::process::Child,
    group: Option<Pid>,
    stdout: Option<ChildStdout>,
    tail: Arc<Mutex<VecDeque<u8>>>,
    listener: JoinHandle<()>,
    /// While there are children their thread must not end.
    _spawner: Spawner,
}

impl Child {
    fn new(mut inner: tokio::process::Child, spawner: Spawner) -> io::Result<Self> {
        let id = inner.id().and_then(|id| i32::try_from(id).ok());
        let stderr = inner.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let listener = tokio::spawn(keep_tail(stderr, tail.clone()));
        Ok(Self { stdout: inner.stdout.take(), group: id.map(Pid::from_raw), inner, tail, listener, _spawner: spawner })
    }

    /// Number of the process; `None` once it has ended and was waited for.
    pub fn id(&self) -> Option<u32> {
        self.inner.id()
    }

    /// Its standard output, once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// Waits until it ends. May be cancelled and called again.
    pub async fn wait(&mut self) -> io::Result<Ended> {
        let status = self.inner.wait().await?;
        self.group = None;
        if !self.listener.is_finished() {
            let _ = tokio::time::timeout(TAIL_WAIT, &mut self.listener).await;
        }
        Ok(Ended { status, stderr: self.stderr() })
    }

    /// Kills the whole group at once. [`Child::wait`] then ends soon.
    pub fn kill(&mut self) {
        // The group's number is ours as long as its leader was not waited for.
        if let Some(group) = self.group
            && self.inner.id().is_some()
        {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    /// The last that it has said on standard error so far.
    pub fn stderr(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let (front, back) = tail.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).trim().to_owned()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        self.listener.abort();
    }
}

async fn keep_tail(mut from: impl AsyncRead + Unpin, tail: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(buffer.iter().take(read));
        let surplus = tail.len().saturating_sub(TAIL);
        tail.drain(..surplus);
    }
}
