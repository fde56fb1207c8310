//! How often one address may ask before it has shown a token: 20 requests a second, with as many in store.
//!
//! Pure but for the lock: the time is handed in. Whoever has a token is counted elsewhere, and media is not counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests a second, and how many may come at once.
const RATE: f64 = 20.0;
/// How many addresses are remembered at most.
const REMEMBERED: usize = 4096;

/// One bucket per address, filled with time and emptied by requests.
#[derive(Debug, Default)]
pub struct Buckets {
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    seen: Instant,
}

impl Bucket {
    fn filled(self, now: Instant) -> f64 {
        (self.left + now.saturating_duration_since(self.seen).as_secs_f64() * RATE).min(RATE)
    }
}

impl Buckets {
    /// Counts a request. `Err` says how long to wait when there were too many.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            // A full bucket says no more than none.
            buckets.retain(|_, bucket| bucket.filled(now) < RATE);
        }
        if buckets.len() >= REMEMBERED {
            // Thousands of addresses in one second are no house: start anew rather than grow.
            buckets.clear();
        }
        let bucket = buckets.entry(house(address)).or_insert(Bucket { left: RATE, seen: now });
        let filled = bucket.filled(now);
        let fits = filled >= 1.0;
        *bucket = Bucket { left: if fits { filled - 1.0 } else { filled }, seen: now };
        if fits { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - filled) / RATE)) }
    }
}

/// One device may use every address of its IPv6 network (the first 64 bits).
pub(super) fn house(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn twenty_at_once_and_twenty_a_second() {
        let (buckets, start) = (Buckets::default(), Instant::now());
        let count = |at: u64| (0..100).filter(|_| buckets.take(address(1), start + Duration::from_millis(at)).is_ok()).count();
        assert_eq!([count(0), count(0), count(500), count(10_000)], [20, 0, 10, 20]);
        let wait = buckets.take(address(1), start + Duration::from_secs(10)).expect_err("too many");
        assert!(wait <= Duration::from_millis(50), "{wait:?}");
        assert!(buckets.take(address(2), start).is_ok(), "others are not affected");
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let ask = |text: &str| buckets.take(text.parse().expect("address"), now).is_ok();
        assert_eq!((0..30).filter(|n| ask(&format!("2001:db8::{n}"))).count(), 20);
        assert!(ask("2001:db8:0:1::1"));
    }

    #[test]
    fn memory_is_bounded() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        for n in 0..20_000 {
            assert!(buckets.take(address(n), now).is_ok());
        }
        assert!(buckets.buckets.lock().expect("free").len() <= REMEMBERED);
    }
}
