//! Sample tables (ISO 14496-12, 8.6 and 8.7) and edit lists: from the run-length tables of `stbl` to one row per sample.
//!
//! Does not know codecs; times are in ticks of the track's media time scale.

use bytes::Bytes;

use super::super::{Damage, KeyFrame, Sample};
use super::boxes::{Boxed, Fields, Kind, children};

/// More samples than this in one file are refused (a day of film has fewer than half of them).
const MOST_SAMPLES: u64 = 20_000_000;

/// How many more samples a file may have.
#[derive(Debug)]
pub(super) struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Self(MOST_SAMPLES)
    }
}

impl Budget {
    fn spend(&mut self, count: u64) -> Result<(), Damage> {
        self.0 = self.0.checked_sub(count).ok_or(Damage::TooLarge("the sample table"))?;
        Ok(())
    }
}

/// How uncompressed sound lies in its chunks: as many as `bytes` bytes for each `frames` entries of the sample table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packing {
    /// Table entries in one packet, at least 1.
    pub(super) frames: u32,
    /// Bytes of one packet, at least 1.
    pub(super) bytes: u32,
}

/// What the table is read for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Where the `moov` is, for error messages.
    pub(super) at: u64,
    /// Bytes in the file.
    pub(super) file_len: u64,
    /// Every sample is a sync sample whatever the table says (sound).
    pub(super) all_key: bool,
    /// One row per chunk and not per entry.
    pub(super) packing: Option<Packing>,
    /// The time map.
    pub(super) edit: &'a Edit,
}

/// One track's table, expanded.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Every sample in decode order, presentation times after the edit list.
    pub(super) samples: Vec<Sample>,
    /// The file ends before a sample of the table; that sample and all that follow it were left out.
    pub(super) truncated: bool,
    /// The samples use more than one sample description.
    pub(super) mixed: bool,
    /// The duration of nearly all samples, where there is such a one.
    pub(super) usual_duration: Option<u32>,
    /// Ticks of the whole table.
    pub(super) media_ticks: u64,
    /// Where and when the samples are, `None` where there are none.
    pub(super) extent: Option<Extent>,
}

/// What a table's samples cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Sum of all sizes.
    pub(super) bytes: u64,
    /// File offset of the first byte of any sample.
    pub(super) first_byte: u64,
    /// File offset just past the last byte of any sample.
    pub(super) end_byte: u64,
    /// The first presentation time.
    pub(super) begin: i64,
    /// When the last shown sample ends.
    pub(super) end: i64,
}

impl Extent {
    /// In one pass: tables of a long film are larger than the processor's caches.
    fn of(samples: &[Sample]) -> Option<Self> {
        let nothing = Self { bytes: 0, first_byte: u64::MAX, end_byte: 0, begin: i64::MAX, end: i64::MIN };
        let extent = samples.iter().fold(nothing, |all, sample| Self {
            bytes: all.bytes + u64::from(sample.size),
            first_byte: all.first_byte.min(sample.offset),
            end_byte: all.end_byte.max(sample.offset.saturating_add(u64::from(sample.size))),
            begin: all.begin.min(sample.pts),
            end: all.end.max(sample.pts.saturating_add(i64::from(sample.duration))),
        });
        (!samples.is_empty()).then_some(extent)
    }
}

/// Expands the tables of `stbl`. A table without samples is an empty one, not an error.
pub(super) fn expand(stbl: &Bytes, wanted: &Wanted<'_>, budget: &mut Budget) -> Result<Table, Damage> {
    let bodies = Bodies(children(stbl).collect());
    let raw = Raw::read(&bodies).map_err(|what| Damage::Broken { offset: wanted.at, what })?;
    if raw.sizes.count() == 0 || raw.chunks.is_empty() || raw.chunk_runs.is_empty() {
        return Ok(Table::default());
    }
    let mut table = match wanted.packing {
        Some(packing) => by_chunk(&raw, packing, wanted, budget)?,
        None => by_sample(&raw, wanted, budget)?,
    };
    if let Some(end) = wanted.edit.end {
        while table.samples.last().is_some_and(|sample| sample.pts >= end) {
            table.samples.pop();
        }
    }
    (table.usual_duration, table.media_ticks) = durations(raw.durations);
    table.extent = Extent::of(&table.samples);
    Ok(table)
}

/// The tables as they are in the file.
struct Raw<'a> {
    durations: &'a [[u8; 8]],
    offsets: &'a [[u8; 8]],
    sizes: Sizes<'a>,
    chunks: Chunks<'a>,
    chunk_runs: &'a [[u8; 12]],
    /// Numbers of the sync samples, from 1, ascending; `None` where all are.
    sync: Option<Vec<u32>>,
}

/// The bodies of the tables, where the track has them.
struct Bodies(Vec<Boxed>);

impl Bodies {
    fn get(&self, kind: &Kind) -> Option<&[u8]> {
        self.0.iter().find(|table| table.kind == *kind).map(|table| &*table.body)
    }

    /// The rows of a table, none where there is no such table; an error where they do not fit in it.
    fn rows<const N: usize>(&self, kind: &Kind, what: &'static str) -> Result<Option<&[[u8; N]]>, &'static str> {
        self.get(kind).map(|body| counted(body).ok_or(what)).transpose()
    }
}

impl<'a> Raw<'a> {
    fn read(bodies: &'a Bodies) -> Result<Raw<'a>, &'static str> {
        let chunks = match bodies.rows(b"stco", "the chunk offset table does not fit")? {
            Some(rows) => Chunks::Short(rows),
            None => Chunks::Long(bodies.rows(b"co64", "the chunk offset table does not fit")?.unwrap_or_default()),
        };
        let sizes = match (bodies.get(b"stsz"), bodies.get(b"stz2")) {
            (Some(body), _) => Sizes::read(body),
            (None, Some(body)) => Sizes::read_compact(body),
            (None, None) => Some(Sizes::Constant { size: 0, count: 0 }),
        };
        let sync = bodies.rows::<4>(b"stss", "the sync sample table does not fit")?;
        let partly = bodies.rows::<4>(b"stps", "the partial sync sample table does not fit")?;
        let sync = sync.map(|rows| {
            let mut numbers: Vec<u32> = rows.iter().chain(partly.unwrap_or_default()).map(|row| u32::from_be_bytes(*row)).collect();
            numbers.sort_unstable();
            numbers
        });
        Ok(Self {
            durations: bodies.rows(b"stts", "the table of decoding times does not fit")?.unwrap_or_default(),
            offsets: bodies.rows(b"ctts", "the table of composition offsets does not fit")?.unwrap_or_default(),
            sizes: sizes.ok_or("the sample size table does not fit")?,
            chunks,
            chunk_runs: bodies.rows(b"stsc", "the sample-to-chunk table does not fit")?.unwrap_or_default(),
            sync,
        })
    }
}

/// The rows of a full box that begins with their number; `None` where they do not fit in it.
fn counted<const N: usize>(body: &[u8]) -> Option<&[[u8; N]]> {
    let (_, _, mut fields) = Fields::full(body)?;
    let count = usize::try_from(fields.u32()?).ok()?;
    fields.take(count.checked_mul(N)?).map(|rows| rows.as_chunks::<N>().0)
}

/// `stsz` or `stz2`.
#[derive(Clone, Copy)]
enum Sizes<'a> {
    Constant { size: u32, count: u32 },
    Each(&'a [[u8; 4]]),
    Compact { bits: u8, count: u32, rows: &'a [u8] },
}

impl<'a> Sizes<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let (_, _, mut fields) = Fields::full(body)?;
        let (size, count) = (fields.u32()?, fields.u32()?);
        if size != 0 {
            return Some(Self::Constant { size, count });
        }
        let len = usize::try_from(count).ok()?.checked_mul(4)?;
        fields.take(len).map(|rows| Self::Each(rows.as_chunks().0))
    }

    fn read_compact(body: &'a [u8]) -> Option<Self> {
        let (_, _, mut fields) = Fields::full(body)?;
        fields.skip(3)?;
        let (bits, count) = (fields.u8()?, fields.u32()?);
        if !matches!(bits, 4 | 8 | 16) {
            return None;
        }
        let len = u64::from(count).checked_mul(u64::from(bits))?.div_ceil(8);
        fields.take(usize::try_from(len).ok()?).map(|rows| Self::Compact { bits, count, rows })
    }

    fn count(&self) -> u32 {
        match self {
            Self::Constant { count, .. } | Self::Compact { count, .. } => *count,
            Self::Each(rows) => u32::try_from(rows.len()).unwrap_or(u32::MAX),
        }
    }

    fn get(&self, number: u32) -> u32 {
        let at = number as usize;
        match self {
            Self::Constant { size, .. } => *size,
            Self::Each(rows) => rows.get(at).map_or(0, |row| u32::from_be_bytes(*row)),
            Self::Compact { bits: 4, rows, .. } => {
                rows.get(at / 2).map_or(0, |pair| u32::from(if at.is_multiple_of(2) { pair >> 4 } else { pair & 15 }))
            }
            Self::Compact { bits: 8, rows, .. } => rows.get(at).map_or(0, |row| u32::from(*row)),
            Self::Compact { rows, .. } => rows.as_chunks::<2>().0.get(at).map_or(0, |row| u32::from(u16::from_be_bytes(*row))),
        }
    }
}

/// `stco` or `co64`.
#[derive(Clone, Copy)]
enum Chunks<'a> {
    Short(&'a [[u8; 4]]),
    Long(&'a [[u8; 8]]),
}

impl Chunks<'_> {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        match self {
            Self::Short(rows) => rows.len(),
            Self::Long(rows) => rows.len(),
        }
    }

    fn get(&self, number: usize) -> u64 {
        match self {
            Self::Short(rows) => rows.get(number).map_or(0, |row| u64::from(u32::from_be_bytes(*row))),
            Self::Long(rows) => rows.get(number).map_or(0, |row| u64::from_be_bytes(*row)),
        }
    }
}

/// The values of a run-length table, one per sample.
struct Runs<'a> {
    rows: std::slice::Iter<'a, [u8; 8]>,
    left: u32,
    value: u32,
}

impl<'a> Runs<'a> {
    fn new(rows: &'a [[u8; 8]]) -> Self {
        Self { rows: rows.iter(), left: 0, value: 0 }
    }

    /// The next value, or `None` (for ever) behind the last run.
    fn next(&mut self) -> Option<u32> {
        while self.left == 0 {
            (self.left, self.value) = pair(self.rows.next()?);
        }
        self.left -= 1;
        Some(self.value)
    }

    /// The sum of the next `count` values, with the last one repeated where the table is too short.
    fn sum(&mut self, mut count: u32) -> u64 {
        let mut sum = 0_u64;
        while count > 0 {
            if self.left == 0 {
                match self.rows.next() {
                    Some(row) => (self.left, self.value) = pair(row),
                    None => return sum.saturating_add(u64::from(self.value) * u64::from(count)),
                }
            }
            let take = self.left.min(count);
            sum = sum.saturating_add(u64::from(self.value) * u64::from(take));
            self.left -= take;
            count -= take;
        }
        sum
    }
}

fn pair(row: &[u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *row;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// One chunk: where it is, and which samples it holds.
struct Chunk {
    offset: u64,
    samples: u32,
    description: u32,
}

/// All chunks in order; sample counts from the sample-to-chunk table (8.7.4).
fn chunks<'a>(raw: &Raw<'a>) -> impl Iterator<Item = Chunk> + use<'a> {
    let chunks = raw.chunks;
    let runs = raw.chunk_runs;
    let mut run = 0_usize;
    let first_of = move |run: usize| runs.get(run).map(|[a, b, c, d, ..]| u32::from_be_bytes([*a, *b, *c, *d]));
    (0..chunks.len()).filter_map(move |number| {
        while first_of(run + 1).is_some_and(|first| first as usize <= number + 1) {
            run += 1;
        }
        let [.., a, b, c, d, e, f, g, h] = *runs.get(run)?;
        let (samples, description) = pair(&[a, b, c, d, e, f, g, h]);
        Some(Chunk { offset: chunks.get(number), samples, description })
    })
}

fn by_sample(raw: &Raw<'_>, wanted: &Wanted<'_>, budget: &mut Budget) -> Result<Table, Damage> {
    let count = raw.sizes.count();
    budget.spend(u64::from(count))?;
    // A table of equal sizes takes no room in the file, so that its length proves nothing.
    let likely = match raw.sizes {
        Sizes::Constant { size, count } => u64::from(count).min(wanted.file_len / u64::from(size.max(1))) as usize,
        _ => count as usize,
    };
    let mut table = Table { samples: Vec::with_capacity(likely), ..Table::default() };
    let (mut durations, mut offsets) = (Runs::new(raw.durations), Runs::new(raw.offsets));
    let mut sync = raw.sync.as_deref().unwrap_or_default().iter().copied().peekable();
    let (mut number, mut dts, mut duration, mut description) = (0_u32, 0_i64, 0_u32, None);
    for chunk in chunks(raw) {
        let mut offset = chunk.offset;
        table.mixed |= *description.get_or_insert(chunk.description) != chunk.description;
        for _ in 0..chunk.samples.min(count - number) {
            let size = raw.sizes.get(number);
            let Some(end) = offset.checked_add(u64::from(size)).filter(|end| *end <= wanted.file_len) else {
                table.truncated = true;
                return Ok(table);
            };
            number += 1;
            duration = durations.next().unwrap_or(duration);
            // Offsets of version 0 are said to be unsigned, but QuickTime has always written negative ones there.
            let composition = offsets.next().unwrap_or(0).cast_signed();
            while sync.next_if(|next| *next < number).is_some() {}
            let key = wanted.all_key || raw.sync.is_none() || sync.peek() == Some(&number);
            let pts = dts.saturating_add(i64::from(composition)).saturating_add(wanted.edit.shift());
            table.samples.push(Sample { offset, pts, size, duration, key });
            dts = dts.saturating_add(i64::from(duration));
            offset = end;
        }
        if number == count {
            break;
        }
    }
    Ok(table)
}

fn by_chunk(raw: &Raw<'_>, packing: Packing, wanted: &Wanted<'_>, budget: &mut Budget) -> Result<Table, Damage> {
    budget.spend(raw.chunks.len() as u64)?;
    let mut table = Table { samples: Vec::with_capacity(raw.chunks.len()), ..Table::default() };
    let mut durations = Runs::new(raw.durations);
    let (mut left, mut dts) = (raw.sizes.count(), 0_i64);
    for chunk in chunks(raw) {
        let entries = chunk.samples.min(left);
        if entries == 0 {
            continue;
        }
        left -= entries;
        let size = u64::from(entries / packing.frames.max(1)) * u64::from(packing.bytes);
        if chunk.offset.checked_add(size).is_none_or(|end| end > wanted.file_len) {
            table.truncated = true;
            return Ok(table);
        }
        let duration = durations.sum(entries);
        table.samples.push(Sample {
            offset: chunk.offset,
            pts: dts.saturating_add(wanted.edit.shift()),
            size: u32::try_from(size).map_err(|_| Damage::Broken { offset: wanted.at, what: "a chunk is too large" })?,
            duration: u32::try_from(duration).unwrap_or(u32::MAX),
            key: true,
        });
        dts = dts.saturating_add_unsigned(duration);
    }
    Ok(table)
}

/// The duration of at least nine in ten samples (the last one left aside), and the sum of all.
fn durations(rows: &[[u8; 8]]) -> (Option<u32>, u64) {
    let (mut count, mut ticks) = (0_u64, 0_u64);
    let mut most = (0_u64, 0_u32);
    for (samples, duration) in rows.iter().map(pair) {
        count += u64::from(samples);
        ticks = ticks.saturating_add(u64::from(samples) * u64::from(duration));
        most = most.max((u64::from(samples), duration));
    }
    let usual = (most.1 > 0 && most.0 * 10 >= count.saturating_sub(1) * 9).then_some(most.1);
    (usual, ticks)
}

/// The sync samples of a video track in order of time. One is closed when no later sample before the next sync sample is shown before it.
pub(super) fn key_frames(samples: &[Sample]) -> Vec<KeyFrame> {
    let mut frames: Vec<KeyFrame> = Vec::new();
    for sample in samples {
        if sample.key {
            frames.push(KeyFrame { pts: sample.pts, offset: sample.offset, block: None, closed: true });
        } else if let Some(last) = frames.last_mut() {
            last.closed &= sample.pts >= last.pts;
        }
    }
    frames.sort_by_key(|frame| frame.pts);
    frames
}

/// What an edit list (8.6.6) does to a track's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Edit {
    /// Ticks of nothing before the first picture or sound.
    pub(super) delay: i64,
    /// The composition time that is shown first.
    pub(super) media_time: i64,
    /// Nothing is shown from this presentation time on.
    pub(super) end: Option<i64>,
    /// More than leading silence and one stretch of normal speed.
    pub(super) complex: bool,
}

impl Edit {
    /// Reads the body of `elst`, whose durations are in ticks of the movie's time scale.
    pub(super) fn read(elst: &[u8], movie_scale: u32, media_scale: u32) -> Option<Self> {
        let (version, _, mut fields) = Fields::full(elst)?;
        let count = fields.u32()?;
        let row = if version == 0 { 12 } else { 20 };
        if u64::from(count) * row > fields.rest().len() as u64 {
            return None;
        }
        let (mut delay, mut normal, mut complex) = (0_u64, None, false);
        for _ in 0..count {
            let duration = fields.word(version)?;
            let start = if version == 0 { i64::from(fields.i32()?) } else { fields.u64()?.cast_signed() };
            let rate = fields.u32()?;
            match (start < 0, normal) {
                (true, None) => delay = delay.saturating_add(duration),
                (true, Some(_)) => {}
                (false, None) => normal = Some((start, duration)),
                (false, Some(_)) => complex = true,
            }
            complex |= start >= 0 && rate != 0x1_0000;
        }
        let delay = rescale(i64::try_from(delay).unwrap_or(i64::MAX), movie_scale, media_scale);
        let (start, duration) = normal.unwrap_or((0, 0));
        let shown = rescale(i64::try_from(duration).unwrap_or(i64::MAX), movie_scale, media_scale);
        let end = (duration > 0 && !complex).then(|| delay.saturating_add(shown));
        Some(Self { delay, media_time: start, end, complex })
    }

    /// Presentation time minus composition time, in ticks.
    pub(super) fn shift(&self) -> i64 {
        self.delay.saturating_sub(self.media_time)
    }
}

/// `ticks` of one time scale in another, rounded to the nearest.
pub(crate) fn rescale(ticks: i64, from: u32, to: u32) -> i64 {
    let from = i128::from(from.max(1));
    let scaled = (i128::from(ticks) * i128::from(to) * 2 + from).div_euclid(from * 2);
    i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).expect("small").to_be_bytes();
        [&size[..], kind, body].concat()
    }

    fn expand_all(tables: &[Vec<u8>], file_len: u64, edit: &Edit, packing: Option<Packing>) -> Result<Table, Damage> {
        let wanted = Wanted { at: 9, file_len, all_key: false, packing, edit };
        expand(&tables.concat().into(), &wanted, &mut Budget::default())
    }

    fn rows(table: &Table) -> Vec<(u64, i64, u32, u32, bool)> {
        table.samples.iter().map(|sample| (sample.offset, sample.pts, sample.size, sample.duration, sample.key)).collect()
    }

    /// Five samples in three chunks, the last of them far behind: 64-bit offsets, 4-bit sizes, negative composition offsets.
    fn five() -> Vec<Vec<u8>> {
        vec![
            boxed(b"stts", &words(&[0, 2, 3, 10, 1, 20])),
            boxed(b"ctts", &words(&[0x100_0000, 3, 1, 5, 1, 20, 2, (-5_i32).cast_unsigned()])),
            boxed(b"stss", &words(&[0, 2, 1, 4])),
            boxed(b"stsc", &words(&[0, 2, 1, 2, 1, 3, 1, 1])),
            boxed(b"stz2", &[words(&[0, 4, 5]), vec![0x12, 0x34, 0x50]].concat()),
            boxed(b"co64", &words(&[0, 3, 0, 100, 0, 200, 1, 0])),
        ]
    }

    #[test]
    fn all_tables_meet_in_rows() {
        let table = expand_all(&five(), 1 << 33, &Edit::default(), None).expect("a table");
        let expected =
            [(100, 5, 1, 10, true), (101, 30, 2, 10, false), (200, 15, 3, 10, false), (203, 25, 4, 20, true), (1 << 32, 50, 5, 20, false)];
        assert_eq!(rows(&table), expected);
        assert!(!table.truncated && !table.mixed);
        let extent = Extent { bytes: 15, first_byte: 100, end_byte: (1 << 32) + 5, begin: 5, end: 70 };
        assert_eq!(table.extent, Some(extent));
        let keys = key_frames(&table.samples);
        assert_eq!(keys.iter().map(|key| (key.pts, key.offset, key.closed)).collect::<Vec<_>>(), [(5, 100, true), (25, 203, true)]);
    }

    #[test]
    fn a_picture_shown_before_its_key_frame_opens_the_group() {
        let sample = |pts, key| Sample { offset: 0, pts, size: 1, duration: 1, key };
        let samples =
            [sample(9, false), sample(0, true), sample(2, false), sample(5, true), sample(3, false), sample(4, false), sample(8, true)];
        let closed: Vec<_> = key_frames(&samples).iter().map(|key| (key.pts, key.closed)).collect();
        assert_eq!(closed, [(0, true), (5, false), (8, true)]);
    }

    #[test]
    fn what_lies_past_the_end_of_the_file_is_left_out() {
        let table = expand_all(&five(), 206, &Edit::default(), None).expect("a table");
        assert_eq!((table.samples.len(), table.truncated), (3, true));
    }

    #[test]
    fn what_is_not_shown_at_the_end_is_left_out() {
        let edit = Edit { delay: 0, media_time: 5, end: Some(40), complex: false };
        let table = expand_all(&five(), 1 << 33, &edit, None).expect("a table");
        assert_eq!(table.samples.iter().map(|sample| sample.pts).collect::<Vec<_>>(), [0, 25, 10, 20]);
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        for (number, table) in five().iter().enumerate() {
            let mut tables = five();
            // The count, as far behind the head as it is in this table.
            let count = if &table[4..8] == b"stz2" { 16..20 } else { 12..16 };
            tables[number].splice(count, [0x0f, 0xff, 0xff, 0xff]);
            let result = expand_all(&tables, 1 << 33, &Edit::default(), None);
            assert!(matches!(result, Err(Damage::Broken { offset: 9, .. })), "table {number}");
        }
        let many = boxed(b"stsz", &words(&[0, 1, 30_000_000]));
        let tables = [five()[3].clone(), many, five()[5].clone()];
        assert_eq!(expand_all(&tables, 1 << 33, &Edit::default(), None).expect_err("refused"), Damage::TooLarge("the sample table"));
    }

    #[test]
    fn uncompressed_sound_by_chunk() {
        let tables = [
            boxed(b"stts", &words(&[0, 1, 300_000_000, 1])),
            boxed(b"stsc", &words(&[0, 1, 1, 150_000_000, 1])),
            boxed(b"stsz", &words(&[0, 1, 300_000_000])),
            boxed(b"stco", &words(&[0, 2, 100, 2_000_000_000])),
        ];
        let packing = Some(Packing { frames: 1, bytes: 4 });
        let table = expand_all(&tables, 1 << 33, &Edit::default(), packing).expect("a table");
        assert_eq!(rows(&table), [(100, 0, 600_000_000, 150_000_000, true), (2_000_000_000, 150_000_000, 600_000_000, 150_000_000, true)]);
    }

    #[test]
    fn edit_lists() {
        let short = |rows: &[[u32; 3]]| {
            let body = [&[0, u32::try_from(rows.len()).expect("few")][..], rows.as_flattened()].concat();
            Edit::read(&words(&body), 1000, 48_000)
        };
        const ONE: u32 = 0x1_0000;
        const EMPTY: u32 = u32::MAX;
        let edit = |delay, media_time, end, complex| Some(Edit { delay, media_time, end, complex });
        assert_eq!(short(&[[2000, 1024, ONE]]), edit(0, 1024, Some(96_000), false));
        assert_eq!(short(&[[500, EMPTY, ONE], [0, 0, ONE]]), edit(24_000, 0, None, false));
        assert_eq!(short(&[[250, EMPTY, ONE], [250, EMPTY, ONE], [1000, 5, ONE]]), edit(24_000, 5, Some(72_000), false));
        assert_eq!(short(&[[1000, 0, ONE], [1000, 96_000, ONE]]), edit(0, 0, None, true));
        assert_eq!(short(&[[1000, 0, 2 * ONE]]), edit(0, 0, None, true));
        assert_eq!(short(&[[500, EMPTY, ONE]]), edit(24_000, 0, None, false));
        assert_eq!(short(&[]), edit(0, 0, None, false));
        assert_eq!(Edit::read(&words(&[0, 2, 0, 0, ONE]), 1000, 48_000), None);
        let long = words(&[0x100_0000, 1, 0, 2000, 1, 0, ONE]);
        assert_eq!(Edit::read(&long, 1000, 48_000), edit(0, 1 << 32, Some(96_000), false));
    }

    #[test]
    fn scales() {
        let cases = [(1, 3, 1000, 333), (2, 3, 1000, 667), (-1, 3, 1000, -333), (1, 2, 1, 1), (5, 0, 1, 5), (i64::MAX, 1, 1000, i64::MAX)];
        for (ticks, from, to, expected) in cases {
            assert_eq!(rescale(ticks, from, to), expected, "{ticks} from {from} to {to}");
        }
    }

    proptest! {
        #[test]
        fn survives_any_change(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), packed in any::<bool>()) {
            let mut bytes = five().concat();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let packing = packed.then_some(Packing { frames: 2, bytes: 3 });
            let wanted = Wanted { at: 0, file_len: 1 << 33, all_key: false, packing, edit: &Edit::default() };
            if let Ok(table) = expand(&bytes.into(), &wanted, &mut Budget::default()) {
                prop_assert!(table.extent.is_none_or(|extent| extent.end_byte <= 1 << 33));
                key_frames(&table.samples);
            }
        }
    }
}
