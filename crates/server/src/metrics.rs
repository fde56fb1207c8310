//! What is counted and measured while the server runs, for Prometheus: names and labels are part of the outside contract.
//!
//! Counters of this process stand in [`METRICS`], so that whoever has something to count needs nothing but one call. What can be looked
//! up when somebody asks (streams, bytes) is not counted but looked up ([`Gauges`]). No label ever holds what a client sent: routes are
//! patterns, and there are as many of them as there are routes. The text is Prometheus's format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use crate::lock::lock;

/// Upper bounds of what [`Metrics::became_ready`] sorts into, in seconds.
const TO_READY: [f64; 11] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// The same for [`Metrics::segment_waited`]; the last one is the deadline of a segment.
const SEGMENT_WAIT: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
/// How much of the older measurements stays when a new one of the encoders' speed comes.
const FADES: f64 = 0.8;
/// Stands for the route of requests that met none.
const NO_ROUTE: &str = "none";
/// The statuses of a stream, each of which is always told.
const STATUSES: [&str; 5] = ["downloading", "converting", "ready", "error", "stopped"];

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What this process has counted.
pub static METRICS: Metrics = Metrics::new();

/// Counters and measurements.
pub struct Metrics {
    to_ready: Histogram<11>,
    segment_wait: Histogram<11>,
    /// Runs of ffmpeg that encode now, by [`Making`].
    running: [AtomicU64; 2],
    speed: Mutex<Speed>,
    /// By status, then by route.
    requests: RwLock<BTreeMap<u16, BTreeMap<String, AtomicU64>>>,
    auth_failures: AtomicU64,
}

/// What a run of ffmpeg makes, in the words of a stream's `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// Pictures.
    Convert,
    /// Sound.
    ConvertAudio,
}

impl Making {
    const ALL: [(Self, &str); 2] = [(Self::Convert, "convert"), (Self::ConvertAudio, "convert_audio")];

    const fn at(self) -> usize {
        match self {
            Self::Convert => 0,
            Self::ConvertAudio => 1,
        }
    }
}

/// Seconds of film that were encoded and seconds that this took; older ones fade.
#[derive(Debug, Clone, Copy, Default)]
struct Speed {
    film: f64,
    busy: f64,
}

/// What is looked up when somebody asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// How many streams there are, by status.
    pub streams: BTreeMap<&'static str, u64>,
    /// Bytes of pieces that came from peers since the start.
    pub fetched: u64,
    /// Bytes that were given to peers since the start.
    pub given: u64,
    /// Bytes on the disk: films and segments.
    pub cache: u64,
}

impl Metrics {
    /// Nothing was counted yet.
    pub const fn new() -> Self {
        Self {
            to_ready: Histogram::new(TO_READY),
            segment_wait: Histogram::new(SEGMENT_WAIT),
            running: [AtomicU64::new(0), AtomicU64::new(0)],
            speed: Mutex::new(Speed { film: 0.0, busy: 0.0 }),
            requests: RwLock::new(BTreeMap::new()),
            auth_failures: AtomicU64::new(0),
        }
    }

    /// A stream that was started at this time can be played now, for the first time.
    pub fn became_ready(&self, started: Timestamp) {
        // A clock that was put back counts as no time at all.
        self.to_ready.record(Duration::try_from(Timestamp::now().duration_since(started)).unwrap_or_default());
    }

    /// A player has waited so long for the first bytes of a segment, or in vain.
    pub fn segment_waited(&self, time: Duration) {
        self.segment_wait.record(time);
    }

    /// A run of ffmpeg begins; it ends when what is returned is dropped.
    pub fn production(&self, making: Making) -> Production<'_> {
        self.running[making.at()].fetch_add(1, Ordering::Relaxed);
        Production { metrics: self, making, busy: Duration::ZERO }
    }

    /// A request was answered. `route` is the pattern that it met.
    pub fn answered(&self, route: Option<&str>, status: u16) {
        let route = route.unwrap_or(NO_ROUTE);
        // Whoever shows no token that is good; and whoever tries to pair without the right secret.
        if status == 401 || (route == "/api/pair" && status == 403) {
            self.auth_failures.fetch_add(1, Ordering::Relaxed);
        }
        {
            let known = self.requests.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = known.get(&status).and_then(|routes| routes.get(route)) {
                count.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let mut known = self.requests.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(status).or_default().entry(route.to_owned()).or_default().fetch_add(1, Ordering::Relaxed);
    }

    /// All of it as text.
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut text = Text(String::with_capacity(8 << 10));
        text.head("balcony_streams", "gauge", "Streams by status; those that are over count for ten minutes.");
        for status in STATUSES {
            text.line("balcony_streams", &[("status", status)], gauges.streams.get(status).copied().unwrap_or(0) as f64);
        }
        text.head("balcony_time_to_ready_seconds", "histogram", "From the start of a stream until it can be played.");
        self.to_ready.write(&mut text, "balcony_time_to_ready_seconds");
        text.head(
            "balcony_segment_wait_seconds",
            "histogram",
            "From the request for a segment until its first bytes are here, or it is given up.",
        );
        self.segment_wait.write(&mut text, "balcony_segment_wait_seconds");
        text.head("balcony_productions", "gauge", "Runs of ffmpeg that encode now: pictures (convert) and sound (convert_audio).");
        for (making, mode) in Making::ALL {
            let running = self.running[making.at()].load(Ordering::Relaxed);
            text.line("balcony_productions", &[("mode", mode)], running as f64);
        }
        text.head(
            "balcony_transcode_speed_ratio",
            "gauge",
            "Seconds of film that are encoded within a second, over the last segments of all productions; 0 before the first one.",
        );
        text.line("balcony_transcode_speed_ratio", &[], lock(&self.speed).ratio());
        text.head("balcony_torrent_bytes_total", "counter", "Bytes of films that came from peers (down) and were given to peers (up).");
        text.line("balcony_torrent_bytes_total", &[("direction", "down")], gauges.fetched as f64);
        text.line("balcony_torrent_bytes_total", &[("direction", "up")], gauges.given as f64);
        text.head("balcony_cache_bytes", "gauge", "Bytes on the disk: films and segments.");
        text.line("balcony_cache_bytes", &[], gauges.cache as f64);
        text.head("balcony_http_requests_total", "counter", "Answered requests by the pattern of their route and by status.");
        for (status, routes) in &*self.requests.read().unwrap_or_else(PoisonError::into_inner) {
            for (route, count) in routes {
                let labels = [("route", route.as_str()), ("status", &status.to_string())];
                text.line("balcony_http_requests_total", &labels, count.load(Ordering::Relaxed) as f64);
            }
        }
        text.head(
            "balcony_auth_failures_total",
            "counter",
            "Requests without a token that is good, and attempts to pair with a wrong secret.",
        );
        text.line("balcony_auth_failures_total", &[], self.auth_failures.load(Ordering::Relaxed) as f64);
        text.0
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Speed {
    fn add(&mut self, film: f64, busy: f64) {
        *self = Self { film: self.film * FADES + film, busy: self.busy * FADES + busy };
    }

    fn ratio(self) -> f64 {
        if self.busy > 0.0 { self.film / self.busy } else { 0.0 }
    }
}

/// A run of ffmpeg, counted for as long as this lives.
pub struct Production<'a> {
    metrics: &'a Metrics,
    making: Making,
    /// For how long it was waited for since the last segment was complete. When nobody wants more, ffmpeg stands still and nobody waits.
    busy: Duration,
}

impl Production<'_> {
    /// Its output was waited for.
    pub fn worked(&mut self, time: Duration) {
        self.busy += time;
    }

    /// A segment with so many seconds of film is complete. The speed is that of pictures: sound is always quick.
    pub fn made(&mut self, seconds: f64) {
        let busy = std::mem::take(&mut self.busy).as_secs_f64();
        if self.making == Making::Convert && seconds > 0.0 {
            lock(&self.metrics.speed).add(seconds, busy);
        }
    }
}

impl Drop for Production<'_> {
    fn drop(&mut self) {
        self.metrics.running[self.making.at()].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Durations, sorted by size.
struct Histogram<const N: usize> {
    bounds: [f64; N],
    /// How many are of each size; the last ones exceed every bound and are in `all` alone.
    counts: [AtomicU64; N],
    all: AtomicU64,
    micros: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    const fn new(bounds: [f64; N]) -> Self {
        Self { bounds, counts: [const { AtomicU64::new(0) }; N], all: AtomicU64::new(0), micros: AtomicU64::new(0) }
    }

    fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some((_, count)) = self.bounds.iter().zip(&self.counts).find(|(bound, _)| seconds <= **bound) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, text: &mut Text, name: &str) {
        // Read first: what is recorded meanwhile must not make a bucket larger than all of them.
        let all = self.all.load(Ordering::Relaxed);
        let (bucket, mut sum) = (format!("{name}_bucket"), 0);
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            sum = (sum + count.load(Ordering::Relaxed)).min(all);
            text.line(&bucket, &[("le", &bound.to_string())], sum as f64);
        }
        text.line(&bucket, &[("le", "+Inf")], all as f64);
        text.line(&format!("{name}_sum"), &[], self.micros.load(Ordering::Relaxed) as f64 / 1e6);
        text.line(&format!("{name}_count"), &[], all as f64);
    }
}

/// Lines of the text format. Writing to a text cannot fail.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_name_of_the_contract() {
        let metrics = Metrics::new();
        metrics.became_ready(Timestamp::now());
        metrics.segment_waited(Duration::from_millis(10));
        metrics.segment_waited(Duration::from_millis(300));
        metrics.segment_waited(Duration::from_secs(9));
        metrics.answered(Some("/m/{ticket}/{rendition}/{name}"), 200);
        metrics.answered(Some("/m/{ticket}/{rendition}/{name}"), 200);
        metrics.answered(Some("/api/pair"), 403);
        metrics.answered(None, 401);
        let _sound = metrics.production(Making::ConvertAudio);
        let mut pictures = metrics.production(Making::Convert);
        pictures.worked(Duration::from_millis(500));
        pictures.made(2.0);
        let streams = BTreeMap::from([("ready", 2), ("error", 1)]);
        let text = metrics.text(&Gauges { streams, fetched: 1 << 40, given: 7, cache: 12 });
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("# HELP") && !line.contains("to_ready_seconds_")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        # TYPE balcony_streams gauge
        balcony_streams{status="downloading"} 0
        balcony_streams{status="converting"} 0
        balcony_streams{status="ready"} 2
        balcony_streams{status="error"} 1
        balcony_streams{status="stopped"} 0
        # TYPE balcony_time_to_ready_seconds histogram
        # TYPE balcony_segment_wait_seconds histogram
        balcony_segment_wait_seconds_bucket{le="0.005"} 0
        balcony_segment_wait_seconds_bucket{le="0.01"} 1
        balcony_segment_wait_seconds_bucket{le="0.025"} 1
        balcony_segment_wait_seconds_bucket{le="0.05"} 1
        balcony_segment_wait_seconds_bucket{le="0.1"} 1
        balcony_segment_wait_seconds_bucket{le="0.25"} 1
        balcony_segment_wait_seconds_bucket{le="0.5"} 2
        balcony_segment_wait_seconds_bucket{le="1"} 2
        balcony_segment_wait_seconds_bucket{le="2"} 2
        balcony_segment_wait_seconds_bucket{le="4"} 2
        balcony_segment_wait_seconds_bucket{le="8"} 2
        balcony_segment_wait_seconds_bucket{le="+Inf"} 3
        balcony_segment_wait_seconds_sum 9.31
        balcony_segment_wait_seconds_count 3
        # TYPE balcony_productions gauge
        balcony_productions{mode="convert"} 1
        balcony_productions{mode="convert_audio"} 1
        # TYPE balcony_transcode_speed_ratio gauge
        balcony_transcode_speed_ratio 4
        # TYPE balcony_torrent_bytes_total counter
        balcony_torrent_bytes_total{direction="down"} 1099511627776
        balcony_torrent_bytes_total{direction="up"} 7
        # TYPE balcony_cache_bytes gauge
        balcony_cache_bytes 12
        # TYPE balcony_http_requests_total counter
        balcony_http_requests_total{route="/m/{ticket}/{rendition}/{name}",status="200"} 2
        balcony_http_requests_total{route="none",status="401"} 1
        balcony_http_requests_total{route="/api/pair",status="403"} 1
        # TYPE balcony_auth_failures_total counter
        balcony_auth_failures_total 2
        "#);
    }

    #[test]
    fn speed_is_that_of_the_last_segments() {
        let metrics = Metrics::new();
        let ratio = || lock(&metrics.speed).ratio();
        assert!(ratio().abs() < 1e-9);
        let mut run = metrics.production(Making::Convert);
        // Film that was there already was waited for by nobody.
        run.made(2.0);
        assert!(ratio().abs() < 1e-9);
        for _ in 0..40 {
            run.worked(Duration::from_secs(1));
            run.made(2.0);
        }
        assert!((ratio() - 2.0).abs() < 0.01, "{}", ratio());
        for _ in 0..40 {
            run.worked(Duration::from_secs(4));
            run.made(2.0);
        }
        assert!((ratio() - 0.5).abs() < 0.01, "{}", ratio());
        metrics.production(Making::ConvertAudio).made(100.0);
        assert!((ratio() - 0.5).abs() < 0.01, "sound does not count");
    }

    #[test]
    fn productions_are_counted_while_they_run() {
        let metrics = Metrics::new();
        let running = || metrics.running.each_ref().map(|running| running.load(Ordering::Relaxed));
        let (first, second, sound) =
            (metrics.production(Making::Convert), metrics.production(Making::Convert), metrics.production(Making::ConvertAudio));
        assert_eq!(running(), [2, 1]);
        drop((first, sound));
        assert_eq!(running(), [1, 0]);
        drop(second);
        assert_eq!(running(), [0, 0]);
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Text(String::new());
        text.line("a", &[("b", "c\"d\\e\nf"), ("g", "")], 1.5);
        assert_eq!(text.0, "a{b=\"c\\\"d\\\\e\\nf\",g=\"\"} 1.5\n");
    }
}
