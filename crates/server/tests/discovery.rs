//! The announcement in the house, heard by another implementation (python-zeroconf) on the other end of a cable.
//!
//! House and phone are network namespaces that each test makes: nothing is sent to the network that this machine is in.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use balcony_server::discovery::{self, Announcement};
use balcony_server::lan;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::signal::unix::SignalKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long anything may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Tells a test's program, started again in a namespace, what to announce.
const ANNOUNCE: &str = "BALCONY_TEST_ANNOUNCE";

const STUDIO: &str = "Anna's Studio._balcony._tcp.local.";

/// A child that ends with its owner.
struct Ending(Child);

impl Ending {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Two machines on one cable, and a container in the first of them.
///
/// The house has 192.168.77.1 and fd77::1 on `lan0`, 172.17.0.1 on `docker0` and 10.8.0.1 on `wg0`; the phone 192.168.77.2 on the other end
/// of `lan0` and 172.17.0.2 on that of `docker0`.
struct Cable {
    phone: Ending,
    house: Ending,
}

impl Cable {
    /// `None`, and why on stderr, where the machine allows no namespaces.
    fn lay() -> Option<Self> {
        let tried = Command::new("unshare").args(["-rn", "true"]).output().expect("unshare (Debian: util-linux)");
        if !tried.status.success() {
            eprintln!("SKIPPED: no network namespace can be made here: {}", String::from_utf8_lossy(&tried.stderr).trim());
            return None;
        }
        let house = asleep(Command::new("unshare").args(["-rn", "sleep", "300"]));
        let phone = asleep(inside(&house).args(["unshare", "-n", "sleep", "300"]));
        let cable = Self { phone, house };
        cable.connect();
        Some(cable)
    }

    fn connect(&self) {
        let phone = self.phone.pid();
        run(inside(&self.house).args(["sh", "-ec"]).arg(format!(
            "ip link set lo up
             ip link add lan0 type veth peer name phone0 netns {phone}
             ip link add docker0 type veth peer name veth0 netns {phone}
             ip link add wg0 type veth peer name veth1 netns {phone}
             ip addr add 192.168.77.1/24 dev lan0
             ip addr add fd77::1/64 dev lan0 nodad
             ip addr add 172.17.0.1/16 dev docker0
             ip addr add 10.8.0.1/24 dev wg0
             for each in lan0 docker0 wg0; do ip link set $each up; done"
        )));
        run(inside(&self.phone).args(["sh", "-ec"]).arg(
            "ip link set lo up
             ip addr add 192.168.77.2/24 dev phone0
             ip addr add 172.17.0.2/16 dev veth0
             ip link set phone0 up
             ip link set veth0 up
             ip link set veth1 up",
        ));
    }

    fn in_the_house(&self, words: &str) {
        run(inside(&self.house).args(words.split(' ')));
    }
}

/// Runs in the namespaces of `there`. It becomes what it runs: the child is that.
fn inside(there: &Ending) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--preserve-credentials", "-U", "-n", "-t"]).arg(there.0.id().to_string());
    command
}

/// Starts a command that ends up as `sleep` in new namespaces, and waits until it is.
fn asleep(command: &mut Command) -> Ending {
    let child = Ending(command.stdin(Stdio::null()).spawn().expect("it starts"));
    let name = format!("/proc/{}/comm", child.pid());
    let since = Instant::now();
    while std::fs::read_to_string(&name).expect("it lives").trim() != "sleep" {
        assert!(since.elapsed() < SOON, "the namespace is not made");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The phone's ears.
struct Ears {
    stdin: ChildStdin,
    heard: mpsc::Receiver<Value>,
    log: Vec<Value>,
    _process: Ending,
}

impl Ears {
    fn open(cable: &Cable) -> Self {
        let mut command = inside(&cable.phone);
        command.arg("/usr/bin/python3").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ears.py"));
        command.args(["192.168.77.2", "172.17.0.2"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Ending(command.spawn().expect("python3"));
        let (stdin, stdout) = (process.0.stdin.take().expect("its stdin"), process.0.stdout.take().expect("its stdout"));
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                said.send(serde_json::from_str(&line).expect("JSON")).ok();
            }
        });
        let mut ears = Self { stdin, heard, log: Vec::new(), _process: process };
        ears.hear("that python3 with zeroconf listens (Debian: python3-zeroconf)", |event| event["event"] == "listening");
        ears
    }

    /// The next event that `is` it.
    fn hear(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.within(SOON, is).unwrap_or_else(|| panic!("not heard: {what}\nbut {:#?}", self.log))
    }

    fn within(&mut self, time: Duration, is: impl Fn(&Value) -> bool) -> Option<Value> {
        let until = Instant::now() + time;
        while let Ok(event) = self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            assert_ne!(event["event"], "leak", "announced to a container");
            self.log.push(event.clone());
            if is(&event) {
                return Some(event);
            }
        }
        None
    }

    fn until(&mut self, what: &str, is: impl Fn(&mut Self) -> bool) {
        let since = Instant::now();
        while !is(self) {
            assert!(since.elapsed() < SOON, "not so: {what}\nbut {:#?}", self.log);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What it knows by now of the addresses of an instance.
    fn look(&mut self, instance: &str) -> Vec<String> {
        writeln!(self.stdin, "look {instance}").expect("asked");
        let answer = self.hear("what it knows", |event| ["looked", "unresolved"].iter().any(|is| event["event"] == *is));
        answer["addresses"].as_array().map(|_| texts(&answer["addresses"])).unwrap_or_default()
    }

    fn resolve(&mut self, host: &str) -> Vec<String> {
        writeln!(self.stdin, "resolve {host}").expect("asked");
        let answer = self.hear("the answer", |event| event["event"] == "resolved" && event["host"] == host);
        texts(&answer["addresses"])
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn is_found(event: &Value, instance: &str) -> bool {
    event["event"] == "found" && event["instance"] == instance
}

/// A server as far as its announcement goes. The line that it is given on stdin is its new name.
struct Announcer {
    process: Ending,
    stdin: ChildStdin,
}

impl Announcer {
    fn start(there: &Ending, https: u16) -> Self {
        let mut command = inside(there);
        command.arg(std::env::current_exe().expect("this program")).args(["--exact", "an_announcer", "--ignored", "--nocapture"]);
        command.env(ANNOUNCE, https.to_string()).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut process = Ending(command.spawn().expect("it starts"));
        let stdin = process.0.stdin.take().expect("its stdin");
        Self { process, stdin }
    }

    /// Ends it in order; how long that took.
    fn end(mut self) -> Duration {
        let asked = Instant::now();
        kill(self.process.pid(), Signal::SIGTERM).expect("told");
        let status = self.process.0.wait().expect("its end");
        assert!(status.success(), "{status}");
        asked.elapsed()
    }
}

/// No test, but the program that [`Announcer`] starts.
#[tokio::test]
#[ignore = "started by the tests, in a namespace"]
async fn an_announcer() {
    let https: u16 = std::env::var(ANNOUNCE).expect("started by a test").parse().expect("a port");
    let said = Announcement {
        id: format!("id{https}"),
        name: "Anna's Studio".to_owned(),
        label: "annas-studio".to_owned(),
        version: "1.2.3".to_owned(),
        https,
        http: https - 1,
        fingerprint: "q83vEjRWeJASNFZ4kBI0Vg".to_owned(),
        bind: None,
    };
    let stop = CancellationToken::new();
    let (name, what) = watch::channel(said);
    let (sender, addresses) = watch::channel(Arc::default());
    let following = tokio::spawn(lan::follow(stop.clone(), sender));
    let announcing = tokio::spawn(discovery::announce(what, addresses, stop.clone()));

    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            name.send_modify(|what| what.name = line);
        }
    });
    tokio::signal::unix::signal(SignalKind::terminate()).expect("a signal").recv().await;
    stop.cancel();
    following.await.expect("it ends");
    announcing.await.expect("it ends");
}

#[test]
fn the_house_finds_the_server_and_all_that_it_must_know() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let announcer = Announcer::start(&cable.house, 3443);
    let found = ears.hear("the server", |event| is_found(event, STUDIO));
    let txt = [
        "txtvers=1",
        "id=id3443",
        "name=Anna's Studio",
        "ver=1.2.3",
        "api=1",
        "path=/",
        "https=3443",
        "http=3442",
        "fp=q83vEjRWeJASNFZ4kBI0Vg",
    ];
    assert_eq!(texts(&found["txt"]), txt);
    assert_eq!((&found["host"], &found["port"]), (&json!("annas-studio.local."), &json!(3443)));
    let of_the_house = ["192.168.77.1", "fd77::1"];
    assert!(texts(&found["addresses"]).contains(&of_the_house[0].to_owned()), "{found}");
    assert!(texts(&found["addresses"]).iter().all(|address| of_the_house.contains(&address.as_str())), "{found}");

    assert_eq!(ears.resolve("annas-studio.local."), of_the_house);
    assert!(ears.resolve("somebody-else.local.").is_empty());
    announcer.end();
}

#[test]
fn another_address_is_announced_and_one_that_is_gone_no_more() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let announcer = Announcer::start(&cable.house, 3443);
    ears.hear("the server", |event| is_found(event, STUDIO));

    let has = |event: &Value, address: &str| event["addresses"].is_array() && texts(&event["addresses"]).iter().any(|has| has == address);
    cable.in_the_house("ip addr add 192.168.77.8/24 dev lan0");
    ears.hear("the second address", |event| has(event, "192.168.77.8") && has(event, "192.168.77.1"));
    // With the first address of a network the kernel takes the others of it, and with the last one of an interface all multicast groups.
    cable.in_the_house("ip addr del 192.168.77.1/24 dev lan0");
    cable.in_the_house("ip addr replace 192.168.77.8/24 dev lan0");
    ears.until("the second address is the only one", |ears| ears.resolve("annas-studio.local.") == ["192.168.77.8", "fd77::1"]);
    ears.until("the list on the phone says the same", |ears| ears.look(STUDIO) == ["192.168.77.8"]);
    announcer.end();
}

#[test]
fn it_is_withdrawn_when_it_ends() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let announcer = Announcer::start(&cable.house, 3443);
    ears.hear("the server", |event| is_found(event, STUDIO));
    let took = announcer.end();
    // Not by its age: that is 75 minutes.
    ears.hear("that it is gone", |event| event["event"] == "gone" && event["instance"] == STUDIO);
    assert!(ears.resolve("annas-studio.local.").is_empty());
    assert!(took < Duration::from_secs(5), "the end took {took:?}");
}

#[test]
fn a_new_name_takes_the_place_of_the_old_one() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let mut announcer = Announcer::start(&cable.house, 3443);
    ears.hear("the server", |event| is_found(event, STUDIO));
    writeln!(announcer.stdin, "Kitchen").expect("told");
    let is_old = |event: &Value| event["event"] == "gone" && event["instance"] == STUDIO;
    let is_new = |event: &Value| is_found(event, "Kitchen._balcony._tcp.local.");
    let one = ears.hear("the old name goes, the new one comes", |event| is_old(event) || is_new(event));
    let other = ears.hear("both of it", |event| if is_old(&one) { is_new(event) } else { is_old(event) });
    let new = if is_old(&one) { other } else { one };
    assert!(texts(&new["txt"]).contains(&"name=Kitchen".to_owned()), "{new}");
    announcer.end();
}

#[test]
fn two_servers_of_one_name_on_one_machine_are_both_found() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let first = Announcer::start(&cable.house, 3443);
    ears.hear("the first", |event| is_found(event, STUDIO));
    let second = Announcer::start(&cable.house, 4443);
    let other = ears.hear("the second", |event| is_found(event, "Anna's Studio (2)._balcony._tcp.local."));
    assert_eq!((&other["port"], texts(&other["txt"])[1].as_str()), (&json!(4443), "id=id4443"));
    assert_eq!(other["host"], "annas-studio.local.", "one machine");
    second.end();
    first.end();
}

#[test]
fn two_machines_of_one_name_are_both_found_at_their_own_addresses() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let first = Announcer::start(&cable.house, 3443);
    ears.hear("the first", |event| is_found(event, STUDIO));
    let second = Announcer::start(&cable.phone, 4443);
    let own = "annas-studio-id4443.local.";
    let is_it = |event: &Value| event["port"] == 4443 && event["host"] == own && texts(&event["addresses"]) == ["192.168.77.2"];
    ears.hear("the second", is_it);
    // It learns one after the other that its instance and its host are taken, and is silent in between.
    ears.until("it answers to its own name", |ears| ears.resolve(own) == ["192.168.77.2"]);
    assert_eq!(ears.resolve("annas-studio.local."), ["192.168.77.1", "fd77::1"]);
    let is_gone = |event: &Value| event["event"] == "gone" && event["instance"] == STUDIO;
    assert!(ears.within(Duration::from_secs(3), is_gone).is_none(), "the first is still there");
    second.end();
    first.end();
}

#[test]
fn a_taken_port_is_tried_again_when_addresses_change() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let hold = "import socket, sys
held = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)]
held[1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
held[0].bind(('0.0.0.0', 5353))
held[1].bind(('::', 5353))
print('held', flush=True)
sys.stdin.read()";
    let mut command = inside(&cable.house);
    command.args(["/usr/bin/python3", "-c", hold]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Ending(command.spawn().expect("python3"));
    let mut line = String::new();
    BufReader::new(holder.0.stdout.take().expect("its stdout")).read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), "held");

    let announcer = Announcer::start(&cable.house, 3443);
    assert!(ears.within(Duration::from_secs(4), |event| is_found(event, STUDIO)).is_none(), "the port is held");
    drop(holder);
    cable.in_the_house("ip addr add 192.168.77.8/24 dev lan0");
    ears.hear("the server", |event| is_found(event, STUDIO));
    announcer.end();
}

/// The program itself, in the house, in folders of its own.
struct Server {
    process: Ending,
    folder: tempfile::TempDir,
    https: u16,
}

impl Server {
    fn start(cable: &Cable, flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("balcony-test-").tempdir().expect("a folder");
        let mut command = inside(&cable.house);
        command.arg(env!("CARGO_BIN_EXE_balcony-server")).args([
            "serve",
            "--name",
            "Anna's Studio",
            "--http-port",
            "0",
            "--https-port",
            "0",
        ]);
        command.args(["--reserve-bytes", "0", "--no-dht", "--no-trackers"]).args(flags);
        for kind in ["config", "data", "cache"] {
            command.arg(format!("--{kind}-dir")).arg(folder.path().join(kind));
        }
        let stderr = std::fs::File::create(folder.path().join("stderr")).expect("a file");
        let mut process = Ending(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().expect("it starts"));
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().expect("its stdout")).read_line(&mut line).expect("a line");
        let https = line.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let said = || std::fs::read_to_string(folder.path().join("stderr")).unwrap_or_default();
        let https = https.unwrap_or_else(|| panic!("it does not listen: {line:?}\n{}", said()));
        Self { process, folder, https }
    }

    fn admin_token(&self) -> String {
        let run: Value = serde_json::from_slice(&std::fs::read(self.folder.path().join("data/run.json")).expect("run.json")).expect("JSON");
        let token = std::fs::read_to_string(run["adminTokenFile"].as_str().expect("a path")).expect("the token");
        token.trim().to_owned()
    }
}

#[test]
fn the_program_announces_itself_and_takes_it_back_at_its_end() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let mut server = Server::start(&cable, &[]);
    let token = server.admin_token();
    let found = ears.hear("the server", |event| is_found(event, STUDIO));
    assert_eq!((&found["host"], &found["port"]), (&json!("annas-studio.local."), &json!(server.https)));
    let keys: Vec<_> = texts(&found["txt"]).iter().map(|text| text.split_once('=').expect("a value").0.to_owned()).collect();
    assert_eq!(keys, ["txtvers", "id", "name", "ver", "api", "path", "https", "http", "fp"]);
    assert_eq!(texts(&found["txt"])[6], format!("https={}", server.https));
    assert_eq!(ears.resolve("annas-studio.local."), ["192.168.77.1", "fd77::1"]);

    kill(server.process.pid(), Signal::SIGTERM).expect("told");
    ears.hear("that it is gone", |event| event["event"] == "gone" && event["instance"] == STUDIO);
    assert!(server.process.0.wait().expect("its end").success());
    assert!(token.len() > 20 && !json!(ears.log).to_string().contains(&token), "a token was announced");
}

#[test]
fn a_program_that_shall_not_announce_itself_does_not() {
    let Some(cable) = Cable::lay() else { return };
    let mut ears = Ears::open(&cable);
    let silent = Server::start(&cable, &["--no-mdns"]);
    let bound = Server::start(&cable, &["--bind", "127.0.0.1"]);
    assert!(ears.within(Duration::from_secs(5), |event| event["instance"].is_string()).is_none(), "{:#?}", ears.log);
    assert!(ears.resolve("annas-studio.local.").is_empty());
    drop((silent, bound));
}
