//! Pairing offers: what the computer's screen shows, and who may come in by it.
//!
//! An offer carries a secret of 128 bits for a QR code and a short code for people who type. It lives two minutes, lets
//! one device in, and ends after five wrong tries; there is one at a time. [`Offers`] decides all of that, and neither
//! looks at a clock nor waits: every call is handed the time. What a device becomes is decided elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::letters::{clear, is_blank};
use super::{DeviceId, OfferId, random};
use crate::lock::lock;

/// How long an offer lives.
pub const LIFE: Duration = Duration::from_secs(120);
/// How many wrong tries end it.
pub const TRIES: u8 = 5;

/// Crockford's base32: no I, L, O and U, so that nothing is mistaken for something else.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Letters of a short code.
const CODE_LETTERS: usize = 8;
/// How many offers of the past are remembered, for those who ask what became of one.
const REMEMBERED: usize = 16;

/// What stands in a QR code: 128 random bits, 22 letters of base64url.
pub struct Secret(String);

impl Secret {
    fn random() -> Self {
        Self(BASE64URL_NOPAD.encode(&random::<16>()))
    }

    /// The secret itself, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What people type: 40 random bits, eight letters of Crockford's base32.
pub struct ShortCode(String);

impl ShortCode {
    fn random() -> Self {
        let bits = random::<5>().iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let letter = |place: usize| char::from(ALPHABET[(bits >> (5 * place)) as usize % ALPHABET.len()]);
        Self((0..CODE_LETTERS).rev().map(letter).collect())
    }

    /// The letters, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShortCode(…)")
    }
}

/// Reads a code as people type it: in any case, with blanks and hyphens, an O for a zero, an I or an L for a one.
/// What is no letter of a code stays, and makes it a wrong one.
fn as_meant(typed: &str) -> String {
    let hyphens = ['-', '\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2212}', '_'];
    let letters = typed.chars().filter(|c| !c.is_whitespace() && !hyphens.contains(c));
    let meant = letters.map(|c| match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    });
    meant.collect()
}

/// SHA-256 of a secret or a code: what is kept of them.
#[derive(Clone, Copy)]
struct Kept([u8; 32]);

impl Kept {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Compares without telling by its duration where the two differ.
    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What a device shows to come in. Keeps only the hash of it.
#[derive(Clone, Copy)]
pub struct Shown {
    kept: Kept,
    is_code: bool,
}

impl Shown {
    /// The secret of a QR code.
    pub fn secret(text: &str) -> Self {
        Self { kept: Kept::of(text.trim()), is_code: false }
    }

    /// A short code, as somebody typed it.
    pub fn code(typed: &str) -> Self {
        Self { kept: Kept::of(&as_meant(typed)), is_code: true }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_code { "Shown(code …)" } else { "Shown(secret …)" })
    }
}

/// A fresh offer, with what has to be shown. Only hashes of it are kept.
#[derive(Debug)]
pub struct Offer {
    /// Its id, which is no secret.
    pub id: OfferId,
    /// For the QR code.
    pub secret: Secret,
    /// For people.
    pub code: ShortCode,
}

/// What a device that comes in becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose device it will be: a person's id or name; `None` makes a new person.
    pub person: Option<String>,
    /// Whether it may do all that the owner of the machine may.
    pub admin: bool,
    /// Which device opened the offer. It lets nobody in any more once that device may not open one.
    pub opener: DeviceId,
}

/// The right to let exactly one device in.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    /// By which offer.
    pub offer: OfferId,
    /// What the device becomes.
    pub terms: Terms,
}

/// Why a try did not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was not the secret or the code.
    #[error("wrong; {tries_left} tries are left")]
    Wrong {
        /// After so many more the offer ends; at 0 it has ended.
        tries_left: u8,
    },
    /// There is no such open offer: used, expired, ended, replaced or never there.
    #[error("there is no such open offer")]
    Over,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It lets a device in.
    Open,
    /// It has let one in.
    Used,
    /// Its two minutes are over.
    Expired,
    /// It was taken back, there were too many wrong tries, or the device that opened it may do that no more.
    Ended,
    /// A newer one took its place.
    Replaced,
}

/// How an offer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What became of it.
    pub fate: Fate,
    /// Wrong tries that are left.
    pub tries_left: u8,
    /// When it expires or would have.
    pub ends: Instant,
    /// The device that came in, once it is known.
    pub device: Option<DeviceId>,
}

struct Remembered {
    id: OfferId,
    secret: Kept,
    code: Kept,
    terms: Terms,
    standing: Standing,
}

impl Remembered {
    fn is(&self, shown: &Shown) -> bool {
        if shown.is_code { self.code.is(&shown.kept) } else { self.secret.is(&shown.kept) }
    }
}

/// All offers of the last time, the open one last. Pure.
#[derive(Default)]
pub struct Offers {
    offers: VecDeque<Remembered>,
}

impl Offers {
    /// Opens an offer, which takes the place of the one that is open.
    pub fn open(&mut self, now: Instant, terms: Terms) -> Offer {
        if let Some(open) = self.current(now) {
            open.standing.fate = Fate::Replaced;
        }
        let offer = Offer { id: OfferId::random(), secret: Secret::random(), code: ShortCode::random() };
        if self.offers.len() >= REMEMBERED {
            self.offers.pop_front();
        }
        self.offers.push_back(Remembered {
            id: offer.id.clone(),
            secret: Kept::of(offer.secret.reveal()),
            code: Kept::of(offer.code.reveal()),
            terms,
            standing: Standing { fate: Fate::Open, tries_left: TRIES, ends: now + LIFE, device: None },
        });
        offer
    }

    /// A try to come in; without an id it goes to the offer that is open. A right one uses the offer up.
    ///
    /// # Errors
    /// [`Refusal`]. A try at an offer that is not open costs the open one nothing, and neither does what was right for an older one.
    pub fn redeem(&mut self, now: Instant, id: Option<&OfferId>, shown: &Shown) -> Result<Claim, Refusal> {
        // Somebody who types the code of a screen that was replaced meanwhile guesses nothing. All of them are compared, whatever comes out.
        let is_old = self.offers.iter().fold(false, |old, offer| old | (offer.standing.fate != Fate::Open && offer.is(shown)));
        let meant = |open: &&mut Remembered| id.is_none_or(|id| *id == open.id);
        let open = self.current(now).filter(meant).ok_or(Refusal::Over)?;
        if open.is(shown) {
            open.standing.fate = Fate::Used;
            return Ok(Claim { offer: open.id.clone(), terms: open.terms.clone() });
        }
        if id.is_none() && is_old {
            return Err(Refusal::Over);
        }
        let standing = &mut open.standing;
        standing.tries_left = standing.tries_left.saturating_sub(1);
        if standing.tries_left == 0 {
            standing.fate = Fate::Ended;
        }
        Err(Refusal::Wrong { tries_left: standing.tries_left })
    }

    /// Ends the open offer if the device that opened it may no longer do that.
    pub fn end_without(&mut self, now: Instant, may_open: impl Fn(&DeviceId) -> bool) {
        if let Some(open) = self.current(now).filter(|open| !may_open(&open.terms.opener)) {
            open.standing.fate = Fate::Ended;
        }
    }

    /// Notes which device came in by a used offer; `None` where it could not be let in after all, which ends the offer.
    pub fn settle(&mut self, id: &OfferId, device: Option<DeviceId>) {
        let used = |offer: &&mut Remembered| offer.id == *id && offer.standing.fate == Fate::Used;
        if let Some(offer) = self.offers.iter_mut().find(used) {
            offer.standing.fate = if device.is_some() { Fate::Used } else { Fate::Ended };
            offer.standing.device = device;
        }
    }

    /// Takes an offer back. `false` where it is not known; one that is over stays what it is.
    pub fn end(&mut self, now: Instant, id: &OfferId) -> bool {
        if let Some(open) = self.current(now).filter(|open| open.id == *id) {
            open.standing.fate = Fate::Ended;
        }
        self.offers.iter().any(|offer| offer.id == *id)
    }

    /// How an offer stands; `None` where it is not known, or was long ago.
    pub fn standing(&mut self, now: Instant, id: &OfferId) -> Option<Standing> {
        self.current(now);
        self.offers.iter().find(|offer| offer.id == *id).map(|offer| offer.standing.clone())
    }

    /// The open offer, after those whose time is over have been closed.
    fn current(&mut self, now: Instant) -> Option<&mut Remembered> {
        let last = self.offers.back_mut().filter(|offer| offer.standing.fate == Fate::Open)?;
        if now >= last.standing.ends {
            last.standing.fate = Fate::Expired;
            return None;
        }
        Some(last)
    }
}

impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standings = self.offers.iter().map(|offer| (&offer.id, &offer.standing));
        f.debug_map().entries(standings).finish()
    }
}

/// The offers of a running server: one call at a time, so that of many right tries one wins.
#[derive(Debug, Default)]
pub struct Pairings {
    offers: Mutex<Offers>,
}

impl Pairings {
    /// See [`Offers::open`].
    pub fn open(&self, now: Instant, terms: Terms) -> Offer {
        self.offers().open(now, terms)
    }

    /// See [`Offers::redeem`]; an offer whose opener may no longer open one is over.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn redeem(
        &self,
        now: Instant,
        id: Option<&OfferId>,
        shown: &Shown,
        may_open: impl Fn(&DeviceId) -> bool,
    ) -> Result<Claim, Refusal> {
        let mut offers = self.offers();
        offers.end_without(now, may_open);
        offers.redeem(now, id, shown)
    }

    /// See [`Offers::settle`].
    pub fn settle(&self, id: &OfferId, device: Option<DeviceId>) {
        self.offers().settle(id, device);
    }

    /// See [`Offers::end`].
    pub fn end(&self, now: Instant, id: &OfferId) -> bool {
        self.offers().end(now, id)
    }

    /// See [`Offers::standing`]; an offer whose opener may no longer open one has ended.
    pub fn standing(&self, now: Instant, id: &OfferId, may_open: impl Fn(&DeviceId) -> bool) -> Option<Standing> {
        let mut offers = self.offers();
        offers.end_without(now, may_open);
        offers.standing(now, id)
    }

    fn offers(&self) -> MutexGuard<'_, Offers> {
        lock(&self.offers)
    }
}

/// A name as a person gave it, fit to be shown to others: without control characters, letters that hide or turn the text around them and
/// heaps of marks ([`super::letters`]), blanks joined. `None` when nothing is left or more than `most` letters.
pub fn presentable(name: &str, most: usize) -> Option<String> {
    let plain: String = name.chars().map(|c| if c.is_control() || is_blank(c) { ' ' } else { c }).collect();
    let words: String = clear(&plain).split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    (!words.is_empty() && words.chars().count() <= most).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    fn terms() -> Terms {
        Terms { person: Some("Anna".into()), admin: false, opener: DeviceId::owner() }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn secrets_and_codes_have_their_shape() {
        let mut letters = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let (secret, code) = (Secret::random(), ShortCode::random());
            assert_eq!(BASE64URL_NOPAD.decode(secret.reveal().as_bytes()).map(|bytes| bytes.len()), Ok(16));
            assert_eq!(code.reveal().len(), 8);
            assert_eq!(as_meant(code.reveal()), code.reveal());
            letters.extend(code.reveal().bytes());
        }
        assert_eq!(letters, ALPHABET.iter().copied().collect(), "every letter, and no other");
    }

    #[test]
    fn codes_are_read_as_they_are_meant() {
        for (typed, meant) in [
            ("ABCDEFGH", "ABCDEFGH"),
            ("abcd-efgh", "ABCDEFGH"),
            (" ab cd\u{a0}ef\tgh\n", "ABCDEFGH"),
            ("ABCD\u{2011}EFGH", "ABCDEFGH"),
            ("oOiIlL00", "00111100"),
            ("ABCDEFGU", "ABCDEFGU"),
            ("", ""),
        ] {
            assert_eq!(as_meant(typed), meant, "{typed:?}");
        }
    }

    #[test]
    fn one_device_by_secret_or_code_and_no_more() {
        let now = Instant::now();
        for by_code in [false, true] {
            for named in [false, true] {
                let mut offers = Offers::default();
                let offer = offers.open(now, terms());
                let shown = if by_code { Shown::code(&offer.code.reveal().to_lowercase()) } else { Shown::secret(offer.secret.reveal()) };
                let id = named.then_some(&offer.id);
                assert_eq!(offers.redeem(now + seconds(119), id, &shown), Ok(Claim { offer: offer.id.clone(), terms: terms() }));
                assert_eq!(offers.redeem(now + seconds(119), id, &shown), Err(Refusal::Over));
                offers.settle(&offer.id, Some(DeviceId::owner()));
                let standing = offers.standing(now + seconds(1000), &offer.id).expect("remembered");
                assert_eq!((standing.fate, standing.device), (Fate::Used, Some(DeviceId::owner())));
            }
        }
    }

    #[test]
    fn a_code_is_no_secret_and_a_secret_no_code() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let offer = offers.open(now, terms());
        assert_eq!(offers.redeem(now, None, &Shown::secret(offer.code.reveal())), Err(Refusal::Wrong { tries_left: 4 }));
        assert_eq!(offers.redeem(now, None, &Shown::code(offer.secret.reveal())), Err(Refusal::Wrong { tries_left: 3 }));
    }

    #[test]
    fn five_wrong_tries_end_it_even_for_the_right_one() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let offer = offers.open(now, terms());
        for tries_left in (0..5).rev() {
            assert_eq!(offers.redeem(now, None, &Shown::code("00000000000")), Err(Refusal::Wrong { tries_left }));
        }
        assert_eq!(offers.redeem(now, None, &Shown::code(offer.code.reveal())), Err(Refusal::Over));
        assert_eq!(offers.standing(now, &offer.id).map(|standing| (standing.fate, standing.tries_left)), Some((Fate::Ended, 0)));
    }

    #[test]
    fn it_expires_by_the_second() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let offer = offers.open(now, terms());
        let right = Shown::secret(offer.secret.reveal());
        assert_eq!(offers.redeem(now + LIFE, None, &right), Err(Refusal::Over));
        assert_eq!(offers.standing(now, &offer.id).map(|standing| standing.fate), Some(Fate::Expired), "and it stays so");
        assert_eq!(offers.redeem(now, None, &right), Err(Refusal::Over));
    }

    #[test]
    fn a_try_at_an_older_offer_costs_the_open_one_nothing() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let (old, new) = (offers.open(now, terms()), offers.open(now, terms()));
        assert_eq!(offers.standing(now, &old.id).map(|standing| standing.fate), Some(Fate::Replaced));
        for id in [&old.id, &OfferId::random()] {
            assert_eq!(offers.redeem(now, Some(id), &Shown::secret(old.secret.reveal())), Err(Refusal::Over));
        }
        assert_eq!(offers.standing(now, &new.id).map(|standing| standing.tries_left), Some(TRIES));
        assert!(offers.redeem(now, Some(&new.id), &Shown::secret(new.secret.reveal())).is_ok());
    }

    #[test]
    fn the_code_of_an_older_offer_costs_the_open_one_nothing_even_without_an_id() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let (old, new) = (offers.open(now, terms()), offers.open(now, terms()));
        for shown in [Shown::code(&old.code.reveal().to_lowercase()), Shown::secret(old.secret.reveal())] {
            assert_eq!(offers.redeem(now, None, &shown), Err(Refusal::Over));
            assert_eq!(offers.redeem(now, Some(&old.id), &shown), Err(Refusal::Over));
        }
        assert_eq!(offers.standing(now, &new.id).map(|standing| standing.tries_left), Some(TRIES));
        // Who says which offer is meant has it wrong, and so has who shows the one as the other.
        assert_eq!(offers.redeem(now, Some(&new.id), &Shown::code(old.code.reveal())), Err(Refusal::Wrong { tries_left: 4 }));
        assert_eq!(offers.redeem(now, None, &Shown::secret(old.code.reveal())), Err(Refusal::Wrong { tries_left: 3 }));
        assert!(offers.redeem(now, None, &Shown::code(new.code.reveal())).is_ok());
    }

    #[test]
    fn an_offer_ends_with_the_right_of_who_opened_it() {
        let now = Instant::now();
        let (mine, lost) = (DeviceId::owner(), DeviceId::random());
        for (opener, fate) in [(&mine, Fate::Open), (&lost, Fate::Ended)] {
            let pairings = Pairings::default();
            let offer = pairings.open(now, Terms { opener: opener.clone(), ..terms() });
            let right = Shown::secret(offer.secret.reveal());
            let fate_now = pairings.standing(now, &offer.id, |id| *id != lost).map(|standing| standing.fate);
            assert_eq!(fate_now, Some(fate));
            // That the device may again brings nothing back.
            assert_eq!(pairings.redeem(now, None, &right, |_| true).is_ok(), fate == Fate::Open);
            let offer = pairings.open(now, Terms { opener: opener.clone(), ..terms() });
            let right = Shown::code(offer.code.reveal());
            let answer = pairings.redeem(now, Some(&offer.id), &right, |id| *id != lost);
            assert_eq!(answer.err(), (fate == Fate::Ended).then_some(Refusal::Over));
        }
    }

    #[test]
    fn taken_back() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let offer = offers.open(now, terms());
        assert!(!offers.end(now, &OfferId::random()) && offers.end(now, &offer.id) && offers.end(now, &offer.id));
        assert_eq!(offers.redeem(now, None, &Shown::secret(offer.secret.reveal())), Err(Refusal::Over));
        assert_eq!(offers.standing(now, &offer.id).map(|standing| standing.fate), Some(Fate::Ended));
    }

    #[test]
    fn a_device_that_could_not_be_let_in_ends_it() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let offer = offers.open(now, terms());
        offers.settle(&offer.id, Some(DeviceId::owner()));
        let open = offers.standing(now, &offer.id).expect("remembered");
        assert_eq!((open.fate, open.device), (Fate::Open, None), "nobody came in yet");
        offers.redeem(now, None, &Shown::secret(offer.secret.reveal())).expect("right");
        offers.settle(&offer.id, None);
        assert_eq!(offers.standing(now, &offer.id).map(|standing| standing.fate), Some(Fate::Ended));
        assert_eq!(offers.redeem(now, None, &Shown::secret(offer.secret.reveal())), Err(Refusal::Over));
    }

    #[test]
    fn a_used_one_is_not_replaced_or_ended() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let offer = offers.open(now, terms());
        offers.redeem(now, None, &Shown::secret(offer.secret.reveal())).expect("right");
        assert!(offers.end(now, &offer.id));
        offers.open(now, terms());
        assert_eq!(offers.standing(now, &offer.id).map(|standing| standing.fate), Some(Fate::Used));
    }

    #[test]
    fn memory_is_bounded() {
        let (now, mut offers) = (Instant::now(), Offers::default());
        let first = offers.open(now, terms()).id;
        let last = (0..1000).map(|_| offers.open(now, terms()).id).last().expect("many");
        assert_eq!((offers.offers.len(), offers.standing(now, &first)), (REMEMBERED, None));
        assert!(offers.standing(now, &last).is_some());
    }

    #[test]
    fn of_many_right_tries_at_once_one_wins() {
        let pairings = Pairings::default();
        let now = Instant::now();
        let offer = pairings.open(now, terms());
        let start = std::sync::Barrier::new(50);
        let tries = std::thread::scope(|scope| {
            let attempt = || {
                start.wait();
                pairings.redeem(now, Some(&offer.id), &Shown::secret(offer.secret.reveal()), |_| true)
            };
            let threads: Vec<_> = (0..50).map(|_| scope.spawn(attempt)).collect();
            threads.into_iter().map(|thread| thread.join().expect("joined")).collect::<Vec<_>>()
        });
        assert_eq!(tries.iter().filter(|answer| answer.is_ok()).count(), 1);
        assert_eq!(tries.iter().filter(|answer| **answer == Err(Refusal::Over)).count(), 49);
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut offers = Offers::default();
        let offer = offers.open(Instant::now(), terms());
        let shown = Shown::secret(offer.secret.reveal());
        let text = format!("{offer:?} {offers:?} {shown:?}");
        assert!(!text.contains(offer.secret.reveal()) && !text.contains(offer.code.reveal()), "{text}");
        assert!(text.contains(offer.id.as_str()));
    }

    #[test]
    fn names_are_made_presentable() {
        for (given, shown) in [
            ("Pixel 8", Some("Pixel 8")),
            ("  Anna’s\t\niPhone ", Some("Anna’s iPhone")),
            ("\u{202e}enohP\u{202c}", Some("enohP")),
            ("a\u{0}b\u{1b}[31m", Some("a b [31m")),
            ("👨‍👩‍👧", Some("👨‍👩‍👧")),
            ("שלום", Some("שלום")),
            ("", None),
            (" \u{200f}\u{feff}\n", None),
            (&"ä".repeat(60), Some(&"ä".repeat(60))),
            (&"ä".repeat(61), None),
        ] {
            assert_eq!(presentable(given, 60).as_deref(), shown, "{given:?}");
        }
    }

    /// What can happen to offers. The numbers choose among those that were ever opened.
    #[derive(Debug, Clone)]
    enum Step {
        Open,
        Wait(u64),
        Wrong { at: Option<usize>, text: String, code: bool },
        Right { at: usize, named: bool, code: bool },
        End(usize),
    }

    fn steps(right: bool) -> impl Strategy<Value = Vec<Step>> {
        let wrong = (any::<Option<usize>>(), ".{0,30}", any::<bool>()).prop_map(|(at, text, code)| Step::Wrong { at, text, code });
        let right = (any::<usize>(), any::<bool>(), any::<bool>()).prop_map(move |(at, named, code)| match right {
            true => Step::Right { at, named, code },
            false => Step::Open,
        });
        let step = prop_oneof![
            3 => Just(Step::Open),
            2 => (0_u64..90).prop_map(Step::Wait),
            4 => wrong,
            3 => right,
            1 => any::<usize>().prop_map(Step::End),
        ];
        proptest::collection::vec(step, 0..60)
    }

    /// Walks a history. Answers how many claims there were for each offer.
    fn walk(steps: &[Step]) -> Result<Vec<u32>, proptest::test_runner::TestCaseError> {
        let (mut offers, mut now) = (Offers::default(), Instant::now());
        let mut opened: Vec<Offer> = Vec::new();
        let mut claims: Vec<u32> = Vec::new();
        for step in steps {
            let place = |at: usize| at.checked_rem(opened.len());
            match step {
                Step::Open => {
                    opened.push(offers.open(now, terms()));
                    claims.push(0);
                }
                Step::Wait(time) => now += seconds(*time),
                Step::Wrong { at, text, code } => {
                    let id = at.and_then(place).map(|at| &opened[at].id);
                    let shown = if *code { Shown::code(text) } else { Shown::secret(text) };
                    prop_assert!(offers.redeem(now, id, &shown).is_err(), "a wrong try lets nobody in");
                }
                Step::Right { at, named, code } => {
                    let Some(at) = place(*at) else { continue };
                    let offer = &opened[at];
                    let shown = if *code { Shown::code(offer.code.reveal()) } else { Shown::secret(offer.secret.reveal()) };
                    let was_open = offers.standing(now, &offer.id).is_some_and(|standing| standing.fate == Fate::Open);
                    let answer = offers.redeem(now, named.then_some(&offer.id), &shown);
                    prop_assert_eq!(answer.is_ok(), was_open, "the right one opens what is open, and nothing else");
                    claims[at] += u32::from(answer.is_ok());
                }
                Step::End(at) => {
                    if let Some(at) = place(*at) {
                        offers.end(now, &opened[at].id);
                    }
                }
            }
            let fates = opened.iter().filter_map(|offer| offers.standing(now, &offer.id)).map(|standing| standing.fate);
            prop_assert!(fates.filter(|fate| *fate == Fate::Open).count() <= 1, "never two at a time");
        }
        Ok(claims)
    }

    proptest! {
        #[test]
        fn no_history_without_the_right_one_lets_anybody_in(steps in steps(false)) {
            prop_assert_eq!(walk(&steps)?.iter().sum::<u32>(), 0);
        }

        #[test]
        fn no_history_lets_two_in_by_one_offer(steps in steps(true)) {
            prop_assert!(walk(&steps)?.iter().all(|claims| *claims <= 1));
        }

        /// The right one works whatever was tried before, as long as the offer is open.
        #[test]
        fn the_right_one_lets_exactly_one_in(wrong in 0_u8..TRIES, wait in 0_u64..120, twice in any::<bool>()) {
            let (mut offers, now) = (Offers::default(), Instant::now());
            let offer = offers.open(now, terms());
            for _ in 0..wrong {
                prop_assert!(offers.redeem(now, None, &Shown::code("x")).is_err());
            }
            let right = Shown::code(offer.code.reveal());
            let tries = (0..=u8::from(twice)).map(|_| offers.redeem(now + seconds(wait), None, &right));
            prop_assert_eq!(tries.filter(Result::is_ok).count(), 1);
        }

        #[test]
        fn any_text_can_be_typed(text in ".{0,200}") {
            prop_assert!(as_meant(&text).chars().count() <= text.chars().count());
            if let Some(name) = presentable(&text, 60) {
                prop_assert!((1..=60).contains(&name.chars().count()) && !name.chars().any(char::is_control));
                let again = presentable(&name, 60);
                prop_assert_eq!(again.as_deref(), Some(name.as_str()));
            }
        }
    }
}
