//! Who goes next: which stream gets the next free slot of its device, and which the next free encoder. Pure: it reads no clock, waits for
//! nobody and starts nothing; who calls it carries out what it says.

use std::collections::HashMap;
use std::hash::Hash;

/// How many may wait, and how many need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams of one device that have a slot at once.
    pub per_device: usize,
    /// Streams that wait, whatever for.
    pub waiting: usize,
    /// Streams of one person among them.
    pub per_person: usize,
}

/// How many streams wait for something else: they count as waiting too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Of everybody.
    pub all: usize,
    /// Of the person who asks.
    pub own: usize,
}

/// What a stream gets that asks for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// A slot, at once.
    Turn,
    /// A place among those of its device that wait, from 1.
    Place(usize),
}

/// So many wait already that one more is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The person who asks has as many waiting as one person may.
    #[error("{0} of your films are waiting already; stop one of them, or start this one when they have begun.")]
    Own(usize),
    /// Everybody together has.
    #[error("Too many films are waiting already; start this one when some of them have begun.")]
    All,
}

/// The streams that wait for a slot of their device, first come first served. Devices do not wait for each other, so that nobody can take
/// anything from anybody here; and a place only falls, because nobody is let in before who is there.
#[derive(Debug)]
pub struct Slots<S, D, P> {
    limits: Limits,
    /// The first comer first, of all devices.
    waiting: Vec<ForSlot<S, D, P>>,
}

#[derive(Debug)]
struct ForSlot<S, D, P> {
    stream: S,
    device: D,
    person: P,
    told: usize,
}

impl<S: Clone + Eq, D: Clone + Eq + Hash, P: Eq> Slots<S, D, P> {
    /// Nobody waits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, waiting: Vec::new() }
    }

    /// A stream asks for a slot of its device, of which others hold `held`.
    ///
    /// # Errors
    /// When it would have to wait and so many do already.
    pub fn enter(&mut self, stream: S, device: D, person: P, held: usize, elsewhere: Elsewhere) -> Result<Entrance, Full> {
        if self.is_free(&device, held) {
            return Ok(Entrance::Turn);
        }
        let own = self.waiting.iter().filter(|waiting| waiting.person == person).count() + elsewhere.own;
        if own >= self.limits.per_person {
            return Err(Full::Own(own));
        }
        if self.waiting.len() + elsewhere.all >= self.limits.waiting {
            return Err(Full::All);
        }
        Ok(self.line_up(stream, device, person))
    }

    /// The same for one that was let in before a restart: it is not refused.
    pub fn enter_again(&mut self, stream: S, device: D, person: P, held: usize) -> Entrance {
        if self.is_free(&device, held) { Entrance::Turn } else { self.line_up(stream, device, person) }
    }

    fn is_free(&self, device: &D, held: usize) -> bool {
        held < self.limits.per_device && !self.waiting.iter().any(|waiting| waiting.device == *device)
    }

    fn line_up(&mut self, stream: S, device: D, person: P) -> Entrance {
        let told = self.waiting.iter().filter(|waiting| waiting.device == device).count() + 1;
        self.waiting.push(ForSlot { stream, device, person, told });
        Entrance::Place(told)
    }

    /// It does not wait any more.
    pub fn leave(&mut self, stream: &S) {
        self.waiting.retain(|waiting| waiting.stream != *stream);
    }

    /// Those that get a slot now, where `held` tells how many slots of a device are taken. They do not wait any more.
    pub fn turns(&mut self, held: impl Fn(&D, &P) -> usize) -> Vec<S> {
        let (most, mut free, mut turns) = (self.limits.per_device, HashMap::new(), Vec::new());
        self.waiting.retain(|waiting| {
            let free = free.entry(waiting.device.clone()).or_insert_with(|| most.saturating_sub(held(&waiting.device, &waiting.person)));
            let stays = *free == 0;
            *free = free.saturating_sub(1);
            if !stays {
                turns.push(waiting.stream.clone());
            }
            stays
        });
        turns
    }

    /// Those whose place is another one than they were told last.
    pub fn moved(&mut self) -> Vec<(S, usize)> {
        let mut places: HashMap<D, usize> = HashMap::new();
        let mut moved = Vec::new();
        for waiting in &mut self.waiting {
            let place = places.entry(waiting.device.clone()).or_default();
            *place += 1;
            if waiting.told != *place {
                waiting.told = *place;
                moved.push((waiting.stream.clone(), *place));
            }
        }
        moved
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The streams that wait for an encoder. Turns go round the people: the next is of the one who had none for longest, and of that one's
/// streams the first comer. So each other person comes at most once before somebody who waits.
///
/// A place that was told never rises. Who comes later but goes first, because its person had nothing yet, is told a place that somebody
/// else has too: places can be shared, and say how many go first at most as things stood when they were told.
#[derive(Debug)]
pub struct Turns<S, P> {
    /// The first comer first.
    waiting: Vec<ForEncoder<S, P>>,
    /// When each person had a turn last, by the count of turns. As many as there are people in the house.
    served: HashMap<P, u64>,
    count: u64,
}

#[derive(Debug)]
struct ForEncoder<S, P> {
    stream: S,
    person: P,
    told: Option<usize>,
}

impl<S, P> Default for Turns<S, P> {
    fn default() -> Self {
        Self { waiting: Vec::new(), served: HashMap::new(), count: 0 }
    }
}

impl<S: Clone + Eq, P: Clone + Eq + Hash> Turns<S, P> {
    /// A stream waits from now on.
    pub fn enter(&mut self, stream: S, person: P) {
        self.waiting.push(ForEncoder { stream, person, told: None });
    }

    /// It does not wait any more; `false`: it did not before.
    pub fn leave(&mut self, stream: &S) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.stream != *stream);
        self.waiting.len() < before
    }

    /// The one whose turn it is; it does not wait any more.
    pub fn take_turn(&mut self) -> Option<S> {
        let at = *self.order().first()?;
        let next = self.waiting.remove(at);
        self.count += 1;
        self.served.insert(next.person, self.count);
        Some(next.stream)
    }

    /// In which order they would go if nobody came any more.
    fn order(&self) -> Vec<usize> {
        let mut served: HashMap<&P, u64> = self.served.iter().map(|(person, at)| (person, *at)).collect();
        let mut left: Vec<usize> = (0..self.waiting.len()).collect();
        let (mut order, mut count) = (Vec::new(), self.count);
        let person = |at: &usize| self.waiting.get(*at).map(|waiting| &waiting.person);
        // The minimum is the first of equals: the first comer.
        while let Some((at, next)) =
            left.iter().enumerate().min_by_key(|(_, next)| person(next).and_then(|person| served.get(person)).copied().unwrap_or(0))
        {
            let (at, next) = (at, *next);
            left.remove(at);
            order.push(next);
            count += 1;
            person(&next).map(|person| served.insert(person, count));
        }
        order
    }

    /// Those whose place is a better one than they were told last, or who were told none yet.
    pub fn moved(&mut self) -> Vec<(S, usize)> {
        let mut moved = Vec::new();
        for (before, at) in self.order().into_iter().enumerate() {
            let Some(waiting) = self.waiting.get_mut(at) else { continue };
            if waiting.told.is_none_or(|told| before + 1 < told) {
                waiting.told = Some(before + 1);
                moved.push((waiting.stream.clone(), before + 1));
            }
        }
        moved
    }

    /// How many wait, and how many of this person.
    pub fn waiting(&self, person: &P) -> Elsewhere {
        let own = self.waiting.iter().filter(|waiting| waiting.person == *person).count();
        Elsewhere { all: self.waiting.len(), own }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { per_device: 2, waiting: 6, per_person: 3 };

    #[test]
    fn a_device_has_its_slots_and_the_rest_waits_in_order() {
        let mut slots = Slots::new(LIMITS);
        let none = Elsewhere::default();
        assert_eq!(slots.enter(1, "tv", "anna", 1, none), Ok(Entrance::Turn));
        assert_eq!(slots.enter(2, "tv", "anna", 2, none), Ok(Entrance::Place(1)));
        assert_eq!(slots.enter(3, "tv", "anna", 2, none), Ok(Entrance::Place(2)));
        // Nobody is let in before who is there, and other devices wait for nobody.
        assert_eq!(slots.enter(4, "tv", "anna", 1, none), Ok(Entrance::Place(3)));
        assert_eq!(slots.enter(5, "phone", "anna", 1, none), Ok(Entrance::Turn));
        assert_eq!(slots.enter(6, "tv", "anna", 2, none), Err(Full::Own(3)));
        assert_eq!(slots.enter(6, "car", "bert", 2, Elsewhere { all: 3, own: 0 }), Err(Full::All));
        assert_eq!(slots.turns(|_, _| 1), [2]);
        assert_eq!(slots.moved(), [(3, 1), (4, 2)]);
        slots.leave(&3);
        assert_eq!(slots.moved(), [(4, 1)]);
        assert!(slots.turns(|_, _| 2).is_empty());
        assert_eq!(slots.turns(|_, _| 0), [4]);
        assert!(slots.is_empty());
    }

    #[test]
    fn turns_go_round_the_people() {
        let mut turns = Turns::default();
        (1..=4).for_each(|n| turns.enter(format!("a{n}"), "anna"));
        assert_eq!(turns.moved().len(), 4);
        assert_eq!(turns.take_turn().as_deref(), Some("a1"));
        (1..=2).for_each(|n| turns.enter(format!("b{n}"), "bert"));
        turns.enter("c1".to_owned(), "carl");
        // Who waits and was told a place keeps it, though others go first now.
        let told: BTreeMap<_, _> = turns.moved().into_iter().collect();
        assert_eq!(told, [("b1", 1), ("b2", 4), ("c1", 2)].map(|(name, place)| (name.to_owned(), place)).into());
        assert_eq!(turns.waiting(&"anna"), Elsewhere { all: 6, own: 3 });
        let order: Vec<_> = std::iter::from_fn(|| turns.take_turn()).collect();
        assert_eq!(order, ["b1", "c1", "a2", "b2", "a3", "a4"]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter { device: u8, person: u8 },
        Leave(usize),
        Free(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..4u8, 0..3u8).prop_map(|(device, person)| Step::Enter { device, person }),
            1 => (0..40usize).prop_map(Step::Leave),
            2 => (0..40usize).prop_map(Step::Free),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        /// Limits hold, places only fall, nobody is lost, and no slot is left free while somebody of its device waits.
        #[test]
        fn slots_are_given_out_rightly(steps in steps()) {
            let mut slots = Slots::new(LIMITS);
            let mut holding: Vec<(usize, u8)> = Vec::new();
            let mut waiting: Vec<(usize, u8, u8)> = Vec::new();
            let mut told: HashMap<usize, usize> = HashMap::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Enter { device, person } => {
                        let held = holding.iter().filter(|(_, of)| *of == device).count();
                        match slots.enter(n, device, person, held, Elsewhere::default()) {
                            Ok(Entrance::Turn) => holding.push((n, device)),
                            Ok(Entrance::Place(place)) => {
                                told.insert(n, place);
                                waiting.push((n, device, person));
                            }
                            Err(Full::All) => prop_assert_eq!(waiting.len(), LIMITS.waiting),
                            Err(Full::Own(own)) => prop_assert_eq!(own, LIMITS.per_person),
                        }
                    }
                    Step::Leave(pick) if !waiting.is_empty() => {
                        let (stream, ..) = waiting.remove(pick % waiting.len());
                        slots.leave(&stream);
                    }
                    Step::Free(pick) if !holding.is_empty() => { holding.remove(pick % holding.len()); }
                    Step::Leave(_) | Step::Free(_) => {}
                }
                let now = holding.clone();
                for stream in slots.turns(|device, _| now.iter().filter(|(_, of)| of == device).count()) {
                    let at = waiting.iter().position(|(of, ..)| *of == stream);
                    prop_assert!(at.is_some(), "{} had no place", stream);
                    let (_, device, _) = waiting.remove(at.unwrap_or_default());
                    holding.push((stream, device));
                }
                for (stream, place) in slots.moved() {
                    prop_assert!(told.insert(stream, place).is_some_and(|before| place < before));
                }
                prop_assert!(waiting.len() <= LIMITS.waiting);
                for person in 0..3 {
                    prop_assert!(waiting.iter().filter(|(.., of)| *of == person).count() <= LIMITS.per_person);
                }
                for device in 0..4 {
                    let held = holding.iter().filter(|(_, of)| *of == device).count();
                    prop_assert!(held <= LIMITS.per_device);
                    let places: Vec<_> = waiting.iter().filter(|(_, of, _)| *of == device).map(|(stream, ..)| told[stream]).collect();
                    prop_assert_eq!(&places, &(1..=places.len()).collect::<Vec<_>>());
                    prop_assert!(places.is_empty() || held == LIMITS.per_device);
                }
            }
            prop_assert_eq!(slots.is_empty(), waiting.is_empty());
        }

        /// Nobody starves: whoever waits sees each other person at most once before the own next turn; within one person the first comer
        /// goes first; places that were told only fall, and everybody is told one; nobody is lost.
        #[test]
        fn encoders_are_given_out_rightly(steps in steps()) {
            let mut turns = Turns::default();
            let mut waiting: Vec<(usize, u8)> = Vec::new();
            let mut told: HashMap<usize, usize> = HashMap::new();
            let mut since: HashMap<u8, HashSet<u8>> = HashMap::new();
            let mut all = 0;
            let mut gone = 0;
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Enter { person, .. } => {
                        if !waiting.iter().any(|(_, of)| *of == person) {
                            since.insert(person, HashSet::new());
                        }
                        turns.enter(n, person);
                        waiting.push((n, person));
                        all += 1;
                    }
                    Step::Leave(pick) if !waiting.is_empty() => {
                        let (stream, _) = waiting.remove(pick % waiting.len());
                        prop_assert!(turns.leave(&stream));
                        prop_assert!(!turns.leave(&stream));
                        gone += 1;
                    }
                    Step::Leave(_) => {}
                    Step::Free(_) => match turns.take_turn() {
                        None => prop_assert!(waiting.is_empty()),
                        Some(stream) => {
                            let person = waiting.iter().find(|(of, _)| *of == stream).map(|(_, person)| *person);
                            prop_assert!(person.is_some());
                            let person = person.unwrap_or_default();
                            let first = waiting.iter().find(|(_, of)| *of == person).map(|(stream, _)| *stream);
                            prop_assert_eq!(first, Some(stream));
                            waiting.retain(|(of, _)| *of != stream);
                            since.insert(person, HashSet::new());
                            for other in (0..3).filter(|other| *other != person && waiting.iter().any(|(_, of)| of == other)) {
                                prop_assert!(since.entry(other).or_default().insert(person), "{} goes twice before {}", person, other);
                            }
                            gone += 1;
                        }
                    },
                }
                for (stream, place) in turns.moved() {
                    let before = told.insert(stream, place);
                    prop_assert!(place > 0 && before.is_none_or(|before| place < before));
                }
                prop_assert_eq!(turns.len(), waiting.len());
                prop_assert!(waiting.iter().all(|(stream, _)| told.contains_key(stream) && told[stream] <= all));
            }
            prop_assert_eq!(all - gone, std::iter::from_fn(|| turns.take_turn()).count());
        }
    }
}
