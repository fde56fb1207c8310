//! The real server for tests: the program itself, in folders of its own, on a port of its own, asked over real sockets.
//!
//! It ends with the [`TestServer`]: by SIGTERM, and by SIGKILL if that is not enough. What it wrote to stderr is shown when a test fails.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// How long the server may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop in order.
const STOP: Duration = Duration::from_secs(15);

/// How much of its log is shown when a test fails, in bytes.
const LAST_WORDS: usize = 50_000;

/// The mock's films.
pub(crate) const FILM: &str = "film.mp4";
pub(crate) const SHORT: &str = "short film.mp4";

fn copy_films(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for film in [FILM, SHORT] {
        std::fs::copy(from.join(film), to.join(film)).expect("copied");
    }
}

/// A running server and its folders.
pub(crate) struct TestServer {
    folder: tempfile::TempDir,
    /// Whom torrents may talk to.
    company: &'static [&'static str],
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Child>,
    base: String,
    https: String,
    token: String,
    client: reqwest::Client,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: bytes::Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl TestServer {
    /// A server that talks to peers on loopback and to nobody else.
    pub(crate) async fn open() -> Self {
        Self::with(&[], &[]).await
    }

    /// The same with more flags and environment.
    pub(crate) async fn with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::in_company(&["--no-trackers", "--allow-private-peers"], flags, environment).await
    }

    /// One that asks trackers and takes every peer for a stranger, as out in the world. Links given to it must lead nowhere but to loopback.
    pub(crate) async fn among_strangers(flags: &[&str]) -> Self {
        Self::in_company(&[], flags, &[]).await
    }

    /// The mock, whose films may be put into its data folder before it starts.
    pub(crate) async fn mock(flags: &[&str], environment: &[(&str, &str)], furnish: impl FnOnce(&Path)) -> Self {
        let mut server = Self::laid_out(&["--mock"], flags, environment);
        furnish(&server.data_dir());
        server.restart().await;
        server
    }

    /// The mock with the films of an earlier test, as at a second start: making them takes seconds of both cores.
    pub(crate) async fn mock_with_films(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mock-films");
        // One test makes them, the others wait for it.
        let lock = std::fs::File::create(kept.with_extension("lock")).expect("a file to lock");
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.expect("the wait").expect("locked");
        if kept.exists() {
            drop(lock);
            return Self::mock(flags, environment, |data_dir| copy_films(&kept, &data_dir.join("mock"))).await;
        }
        let server = Self::mock(flags, environment, |_| {}).await;
        let aside = kept.with_extension("aside");
        copy_films(&server.data_dir().join("mock"), &aside);
        std::fs::rename(&aside, &kept).expect("kept");
        drop(lock);
        server
    }

    /// The same as [`TestServer::with`] on a folder that is prepared before the first start: all of its own folders will lie in it.
    pub(crate) async fn in_folder(flags: &[&str], furnish: impl FnOnce(&Path)) -> Self {
        let mut server = Self::laid_out(&["--no-trackers", "--allow-private-peers"], flags, &[]);
        furnish(server.folder.path());
        server.restart().await;
        server
    }

    async fn in_company(company: &'static [&'static str], flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut server = Self::laid_out(company, flags, environment);
        server.restart().await;
        server
    }

    /// One that was not started yet.
    fn laid_out(company: &'static [&'static str], flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("balcony-test-").tempdir().expect("a folder");
        let owned = |text: &&str| (*text).to_owned();
        Self {
            folder,
            company,
            flags: flags.iter().map(owned).collect(),
            environment: environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            process: None,
            base: String::new(),
            https: String::new(),
            token: String::new(),
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
        }
    }

    /// Starts it again on the same folders, after it has ended or after ending it in order. Its port is another one then.
    pub(crate) async fn restart(&mut self) {
        self.end();
        let stderr = std::fs::File::options().create(true).append(true).open(self.log()).expect("a file for its stderr");
        let mut process = Command::new(env!("CARGO_BIN_EXE_balcony-server"))
            .arg("serve")
            .args(["--http-port", "0", "--https-port", "0", "--reserve-bytes", "0"])
            .args(if self.flags.iter().any(|flag| flag == "--bind") { &[][..] } else { &["--bind", "127.0.0.1"] })
            .args(["--no-dht", "--no-mdns"])
            .args(self.company)
            .arg("--config-dir")
            .arg(self.config_dir())
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--cache-dir")
            .arg(self.cache_dir())
            .args(&self.flags)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the server's program");
        let stdout = process.stdout.take().expect("its stdout");
        self.process = Some(process);
        let (said, hear) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens after the first line; the pipe is read on all the same.
                said.send(line).ok();
            }
        });
        let line = tokio::task::spawn_blocking(move || hear.recv_timeout(START)).await.expect("the wait");
        let line = line.unwrap_or_else(|_| panic!("it does not start:\n{}", self.last_words()));
        assert!(line.starts_with("listening http="), "{line}");
        let run = std::fs::read(self.data_dir().join("run.json")).expect("run.json is there when it listens");
        let run: Value = serde_json::from_slice(&run).expect("run.json");
        assert_eq!(run["pid"], self.pid());
        self.base = format!("http://{}", run["http"].as_str().expect("its address"));
        self.https = format!("https://{}", run["https"].as_str().expect("its address for TLS"));
        let token = std::fs::read_to_string(run["adminTokenFile"].as_str().expect("the token's file")).expect("the token");
        self.token = token.trim().to_owned();
    }

    /// Kills it with no chance to tidy up.
    pub(crate) fn kill_9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("killed");
            process.wait().expect("gone");
        }
    }

    /// Ends it in order; how it ended, or `None` where it did not run.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM).ok();
        let asked = Instant::now();
        while asked.elapsed() < STOP {
            if let Some(status) = process.try_wait().expect("its end") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        process.kill().ok();
        Some(process.wait().expect("gone"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Whether the process is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Resident memory in bytes, now.
    pub(crate) fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Most resident memory so far, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") * 1024
    }

    /// All living processes below it, grandchildren included: pid and command line.
    pub(crate) fn children(&self) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        let mut parents = vec![self.pid()];
        let all: Vec<(u32, u32)> = std::fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                // The name stands in parentheses and may hold anything; state and parent follow the last one.
                let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
                let state = rest.next()?;
                let parent = rest.next()?.parse().ok()?;
                (state != "Z").then_some((pid, parent))
            })
            .collect();
        while let Some(parent) = parents.pop() {
            for (pid, _) in all.iter().filter(|(_, of)| *of == parent) {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                found.push((*pid, String::from_utf8_lossy(&line).replace('\0', " ")));
                parents.push(*pid);
            }
        }
        found
    }

    pub(crate) fn config_dir(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("stderr.txt")
    }

    /// What it wrote to stderr so far, over all its lives.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// The last of that, for people: a server that logs everything says more than anybody reads.
    fn last_words(&self) -> String {
        let said = self.said();
        said[said.floor_char_boundary(said.len().saturating_sub(LAST_WORDS))..].to_owned()
    }

    /// `http://127.0.0.1:port` of now.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// `https://127.0.0.1:port` of now. The client of this server speaks no TLS: ask with curl and [`TestServer::ca_pem`].
    pub(crate) fn https(&self) -> &str {
        &self.https
    }

    /// The file with the certificate of its authority.
    pub(crate) fn ca_pem(&self) -> PathBuf {
        self.data_dir().join("ca.pem")
    }

    /// Pairs a new device as a phone would, of this person or of one with the device's name. Answers its token.
    pub(crate) async fn pair(&self, name: &str, person: Option<&str>) -> String {
        let asked = person.map_or_else(|| json!({}), |person| json!({ "person": person }));
        let offer = self.call(reqwest::Method::POST, "/api/pairings", Some(asked)).await;
        assert_eq!(offer.status, 201, "{}", offer.text());
        let body = json!({ "code": offer.json()["code"], "deviceName": name, "platform": "test" });
        let paired = answer(self.client.post(self.here("/api/pair")).json(&body)).await;
        assert_eq!(paired.status, 201, "{}", paired.text());
        paired.json()["token"].as_str().expect("a token").to_owned()
    }

    /// A call of the API with a device's token.
    pub(crate) async fn call_as(&self, token: &str, method: reqwest::Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.client.request(method, self.here(path)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    /// The same path at the address of now: a URL from before a restart, or a path.
    pub(crate) fn here(&self, url: &str) -> String {
        let path = url.split_once("://").map_or(url, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        format!("{}{path}", self.base)
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// A call of the API with the admin's token.
    pub(crate) async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Answer {
        self.call_as(&self.token, method, path, body).await
    }

    /// Media, with no header at all.
    pub(crate) async fn get(&self, url: &str) -> Answer {
        answer(self.client.get(self.here(url))).await
    }

    /// Media that has to be there; a 503 is asked again, as players do.
    pub(crate) async fn fetch(&self, url: &str) -> bytes::Bytes {
        for _ in 0..10 {
            let answer = self.get(url).await;
            match answer.status {
                200 => return answer.body,
                503 => tokio::time::sleep(Duration::from_secs(1)).await,
                other => panic!("{other} for {url}: {}\n{}", answer.text(), self.last_words()),
            }
        }
        panic!("{url} was late ten times\n{}", self.last_words());
    }

    /// Starts a stream; `options` is merged into the request.
    pub(crate) async fn start(&self, link: &str, options: Value) -> Value {
        let answer = self.try_start(link, options).await;
        assert!(matches!(answer.status, 200 | 201), "{}: {}", answer.status, answer.text());
        answer.json()
    }

    pub(crate) async fn try_start(&self, link: &str, options: Value) -> Answer {
        let mut body = json!({ "magnetLink": link });
        for (key, value) in options.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.call(reqwest::Method::POST, "/api/stream/start", Some(body)).await
    }

    pub(crate) async fn status(&self, id: &str) -> Value {
        let answer = self.call(reqwest::Method::GET, &format!("/api/stream/status/{id}"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub(crate) async fn stop(&self, id: &str) -> Value {
        let answer = self.call(reqwest::Method::DELETE, &format!("/api/stream/{id}"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Asks until the status is what is waited for.
    pub(crate) async fn until(&self, id: &str, seconds: u64, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status(id).await;
            if holds(&status) {
                return status;
            }
            assert!(begun.elapsed().as_secs() < seconds, "not {what} within {seconds} s: {status:#}\n{}", self.last_words());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks until it is ready; an error ends the test.
    pub(crate) async fn until_ready(&self, id: &str) -> Value {
        let over = |status: &Value| matches!(status["status"].as_str(), Some("ready" | "error" | "stopped"));
        let status = self.until(id, 60, "ready", over).await;
        assert_eq!(status["status"], "ready", "{status:#}\n{}", self.last_words());
        status
    }

    /// A stream that is ready.
    pub(crate) async fn play(&self, link: &str, options: Value) -> Value {
        let started = self.start(link, options).await;
        self.until_ready(started["streamId"].as_str().expect("an id")).await
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.unwrap_or_else(|error| panic!("a body that breaks off: {error:?}"));
    Answer { status, headers, body }
}

/// All events until the line ends.
pub(crate) async fn events(request: reqwest::RequestBuilder) -> Vec<(String, Value)> {
    heard(request.send().await.expect("an answer")).await
}

/// All events of an answer that has begun.
pub(crate) async fn heard(mut answer: reqwest::Response) -> Vec<(String, Value)> {
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    // A server that ends may break the line.
    while let Ok(Some(bytes)) = answer.chunk().await {
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    let field = |block: &str, name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned());
    let event = |block: &str| Some((field(block, "event:")?, serde_json::from_str(&field(block, "data:")?).ok()?));
    text.split("\n\n").filter_map(event).collect()
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.last_words());
        }
    }
}

/// Whether a process with this id is there and no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}
