//! A real cable: a network namespace of its own at the other end of a pair of virtual interfaces, with a seeder in it or a phone. This end
//! can be pulled out or get another address.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A cable out of this machine, with nothing at its other end.
pub(crate) struct Wire {
    name: String,
    net: String,
}

/// The cable with the seeder at its other end. Both end with it.
pub(crate) struct Cable {
    wire: Wire,
    seeder: Child,
    info_hash: String,
    port: u16,
    _folder: tempfile::TempDir,
}

fn ip(words: &str) -> bool {
    let done = Command::new("ip").args(words.split_whitespace()).output();
    done.is_ok_and(|done| {
        if !done.status.success() {
            eprintln!("ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        done.status.success()
    })
}

impl Wire {
    /// `None` where such a thing may not be made, with the reason on stderr.
    pub(crate) fn lay() -> Option<Self> {
        let own = std::process::id();
        let (name, net) = (format!("fault{}", own % 100_000), format!("10.{}.{}", 100 + own / 250 % 100, own % 250));
        let wire = Self { name, net };
        let (name, net) = (&wire.name, &wire.net);
        let laid = ip(&format!("netns add {name}"))
            && ip(&format!("link add {name} type veth peer name far netns {name}"))
            && ip(&format!("addr add {net}.1/24 dev {name}"))
            && ip(&format!("link set {name} up"))
            && ip(&format!("-n {name} addr add {net}.2/24 dev far"))
            && ip(&format!("-n {name} link set far up"));
        if !laid {
            eprintln!("skipped: no network can be made here");
        }
        laid.then_some(wire)
    }

    /// This machine's address at it.
    pub(crate) fn near(&self) -> String {
        format!("{}.1", self.net)
    }

    /// The address at its other end.
    pub(crate) fn far(&self) -> String {
        format!("{}.2", self.net)
    }

    /// A program at its other end.
    pub(crate) fn at_the_far_end(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// The interface of this machine goes down.
    pub(crate) fn is_pulled_out(&self) {
        assert!(ip(&format!("link set {} down", self.name)));
    }

    pub(crate) fn is_put_in(&self) {
        assert!(ip(&format!("link set {} up", self.name)));
    }

    /// The machine at the other end is out of reach.
    pub(crate) fn far_end_vanishes(&self) {
        assert!(ip(&format!("-n {} link set far down", self.name)));
    }

    pub(crate) fn far_end_is_back(&self) {
        assert!(ip(&format!("-n {} link set far up", self.name)));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.name));
        ip(&format!("netns del {}", self.name));
    }
}

impl Cable {
    /// `None` where such a thing may not be made, with the reason on stderr.
    pub(crate) fn to_a_seeder_of(film: &Path) -> Option<Self> {
        let wire = Wire::lay()?;
        let folder = tempfile::Builder::new().prefix("faults-cable-").tempdir().expect("a folder");
        let mut seeder = wire
            .at_the_far_end("/usr/bin/python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/seed.py"))
            .args([film, &folder.path().join("it.torrent")])
            .args(["65536", "0", &wire.far()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip netns exec");
        let mut line = String::new();
        BufReader::new(seeder.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a line of the seeder");
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["ready", info_hash, port] = words[..] else { panic!("the seeder did not begin: {line:?}") };
        let (info_hash, port) = (info_hash.to_owned(), port.parse().expect("a port"));
        Some(Self { wire, seeder, info_hash, port, _folder: folder })
    }

    pub(crate) fn link(&self) -> String {
        format!("magnet:?xt=urn:btih:{}&x.pe={}:{}", self.info_hash, self.wire.far(), self.port)
    }

    /// How fast the seeder sends from now on, in bytes per second; 0: as fast as it can.
    pub(crate) fn at_rate(&mut self, rate: u64) {
        writeln!(self.seeder.stdin.as_mut().expect("its input"), "{rate}").expect("told");
    }

    pub(crate) fn is_pulled_out(&self) {
        self.wire.is_pulled_out();
    }

    pub(crate) fn is_put_in(&self) {
        self.wire.is_put_in();
    }

    /// This machine has another address from now on.
    pub(crate) fn gets_another_address(&self) {
        let Wire { name, net } = &self.wire;
        assert!(ip(&format!("addr del {net}.1/24 dev {name}")));
        assert!(ip(&format!("addr add {net}.77/24 dev {name}")));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.seeder.kill().ok();
        self.seeder.wait().ok();
    }
}
