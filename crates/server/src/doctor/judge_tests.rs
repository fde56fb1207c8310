//! Facts in tables, and what has to be found.

use std::path::PathBuf;
use std::time::Duration;

use balcony_media::encoder::{Family, Silicon};

use super::super::words::SENTENCES;
use super::*;
use crate::produce::trial::{Told, Tried};
use crate::programs::best::{self, Found};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn all(names: &str) -> BTreeSet<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

/// Everything is well.
fn healthy() -> Facts {
    let program = |name: &str| Program {
        asked: name.into(),
        state: ProgramState::Runs { path: format!("/bin/{name}").into(), version: "7.1".into() },
    };
    let parts = Parts {
        demuxers: DEMUXERS.split(',').map(str::to_owned).collect(),
        decoders: CODECS.iter().filter_map(|(_, decoders)| decoders.last()).map(|name| (*name).to_owned()).collect(),
        encoders: all("libx264 aac webvtt"),
        filters: all("scale format setsar trim aresample aformat zscale tonemap bwdif overlay subtitles"),
    };
    let folder = |which| Folder { which, path: "/folder".into(), state: FolderState::Fine };
    Facts {
        server: Some(Server::Runs { pid: 7 }),
        ffmpeg: Some(program("ffmpeg")),
        ffprobe: Some(program("ffprobe")),
        parts: Some(Ok(parts)),
        starts_in: None,
        choice: best::Choice::default(),
        trials: Some(Trials { processor: None, silicon: Told::default() }),
        cage: Some(Ok(Report { files: true, network: true, calls: true, landlock: 7 })),
        ports: Some(Ports::Ours { http: 3001, https: 3443 }),
        folders: vec![folder("data"), folder("cache")],
        space: Some(Space { free: 100 << 30, free_for_data: 100 << 30, used: 0, reserve: 2 << 30, asked: 20 << 30, budget: 20 << 30 }),
        database: Some(Database { path: "/folder/db".into(), state: Soundness::Sound { newest: None }, aside: None }),
        certificate: Some(Certificate::Served { authority_until: Some(at(NOW + 3650 * DAY)), until: at(NOW + 90 * DAY), lacking: vec![] }),
        discovery: Some(Discovery { switched_off: false, alone: false, address: Some([192, 168, 1, 20].into()), obstacle: None }),
        torrents: Some(Torrents { mock: false, dht: true, trackers: true, private: false, nodes: Some((0, Duration::from_secs(9))) }),
        clock: Some(Clock { now: at(NOW), newest: Some(at(NOW + 60)) }),
        late: BTreeSet::new(),
    }
}

fn judged(facts: &Facts) -> Vec<Finding> {
    judge(facts, at(NOW), "/folder", 5)
}

/// What a check has to find.
type Expected = Vec<(Level, &'static str)>;

/// One thing that is otherwise than in [`healthy`], and all that is found of it.
fn cases() -> Vec<(Check, Facts, Expected)> {
    use Level::{Broken, Good, Note};
    let mut cases = Vec::new();
    let mut case = |check, change: &dyn Fn(&mut Facts), expected: &[(Level, &'static str)]| {
        let mut facts = healthy();
        change(&mut facts);
        cases.push((check, facts, expected.to_vec()));
    };

    case(Check::Server, &|facts| facts.server = Some(Server::Nobody), &[(Good, "server_none")]);
    case(Check::Server, &|facts| facts.server = Some(Server::Silent { pid: 3 }), &[(Broken, "server_silent")]);
    case(Check::Server, &|facts| facts.server = None, &[]);

    let with = |state: ProgramState| Some(Program { asked: "ffmpeg".into(), state });
    let version = |version: &str| with(ProgramState::Runs { path: "/bin/ffmpeg".into(), version: version.into() });
    // Without a program there are neither parts nor trials.
    let without = |facts: &mut Facts, state: ProgramState| (facts.ffmpeg, facts.parts, facts.trials) = (with(state), None, None);
    case(Check::Ffmpeg, &|facts| without(facts, ProgramState::Missing), &[(Broken, "program_missing")]);
    case(Check::Ffmpeg, &|facts| without(facts, ProgramState::Unusable("permission denied".into())), &[(Broken, "program_unusable")]);
    case(Check::Ffmpeg, &|facts| without(facts, ProgramState::Hangs), &[(Broken, "program_hangs")]);
    case(Check::Encoders, &|facts| without(facts, ProgramState::Hangs), &[]);
    for (number, expected) in [
        ("4.4.2-0ubuntu0.22.04.1", (Broken, "ffmpeg_old")),
        ("n5.0", (Broken, "ffmpeg_old")),
        ("5.1.9-0+deb12u1", (Good, "program_good")),
        ("5.10", (Good, "program_good")),
        ("8", (Good, "program_good")),
        ("N-109468-gd39b34123d", (Good, "program_good")),
        ("2024-01-01-git", (Good, "program_good")),
        ("", (Good, "program_good")),
    ] {
        case(Check::Ffmpeg, &|facts| facts.ffmpeg = version(number), &[expected]);
    }
    let here = (Good, "program_good");
    case(Check::Ffmpeg, &|facts| facts.parts = Some(Err("it took long".into())), &[here, (Note, "ffmpeg_unlisted")]);
    for (kind, name, expected) in [
        ("encoder", "libx264", (Broken, "ffmpeg_lacks")),
        ("encoder", "aac", (Broken, "ffmpeg_lacks")),
        ("encoder", "webvtt", (Note, "ffmpeg_lacks_subtitles")),
        ("filter", "scale", (Broken, "ffmpeg_lacks")),
        ("filter", "zscale", (Note, "ffmpeg_lacks_hdr")),
        ("filter", "bwdif", (Note, "ffmpeg_lacks_interlaced")),
        ("filter", "subtitles", (Note, "ffmpeg_lacks_subtitles")),
        ("demuxer", "matroska", (Broken, "ffmpeg_lacks")),
        ("demuxer", "avi", (Note, "ffmpeg_lacks_containers")),
        ("decoder", "hevc", (Note, "ffmpeg_lacks_codecs")),
        ("decoder", "libopus", (Note, "ffmpeg_lacks_codecs")),
    ] {
        let remove = |facts: &mut Facts| {
            let Some(Ok(parts)) = facts.parts.as_mut() else { panic!("parts") };
            let names = match kind {
                "encoder" => &mut parts.encoders,
                "filter" => &mut parts.filters,
                "demuxer" => &mut parts.demuxers,
                _ => &mut parts.decoders,
            };
            assert!(names.remove(name), "{name}");
        };
        case(Check::Ffmpeg, &remove, &[here, expected]);
    }
    let nothing = [
        here,
        (Broken, "ffmpeg_lacks"),
        (Note, "ffmpeg_lacks_containers"),
        (Note, "ffmpeg_lacks_codecs"),
        (Note, "ffmpeg_lacks_hdr"),
        (Note, "ffmpeg_lacks_interlaced"),
        (Note, "ffmpeg_lacks_subtitles"),
    ];
    case(Check::Ffmpeg, &|facts| facts.parts = Some(Ok(Parts::default())), &nothing);
    case(Check::Ffprobe, &|facts| facts.ffprobe = with(ProgramState::Missing), &[(Broken, "program_missing")]);

    let quick = Some(Duration::from_millis(14));
    case(Check::Ffmpeg, &|facts| facts.starts_in = quick, &[here, (Good, "ffmpeg_starts")]);
    let found = |path: &str| Found { path: path.into(), stamp: String::new(), starts_in: Some(14), lacks: BTreeSet::new() };
    let two = best::Choice { found: vec![found("/bin/ffmpeg"), found("/opt/ffmpeg")] };
    case(Check::Ffmpeg, &|facts| (facts.starts_in, facts.choice) = (quick, two.clone()), &[here, (Good, "ffmpeg_chosen")]);

    let nvenc = |works: bool| Tried {
        silicon: Silicon::Nvenc,
        largest: works.then_some((1920, 1080)),
        pace: vec![],
        flaw: (!works).then(|| "no card".into()),
    };
    let told = |wanted, tried: &[Tried]| Told { wanted, tried: tried.to_vec(), ..Told::default() };
    let distrusted = Told { distrusted: vec![(Silicon::Nvenc, "it hangs".into())], ..told(Wanted::Auto, &[nvenc(true)]) };
    let forced = Wanted::One(Family::Nvenc);
    for (silicon, processor, expected) in [
        (told(Wanted::Auto, &[]), None, (Good, "encoders_good")),
        (told(Wanted::X264, &[]), None, (Good, "encoders_good")),
        (told(Wanted::Auto, &[nvenc(false)]), None, (Good, "encoders_none")),
        (told(Wanted::Auto, &[nvenc(true)]), None, (Good, "encoders_silicon")),
        (told(forced, &[nvenc(true)]), None, (Good, "encoders_silicon")),
        (told(forced, &[nvenc(false)]), None, (Note, "encoders_not_that")),
        (Told { trying: true, ..told(forced, &[nvenc(false)]) }, None, (Good, "encoders_trying")),
        (distrusted, None, (Note, "encoders_distrusted")),
        (told(Wanted::Off, &[]), None, (Note, "encoders_off")),
        (told(Wanted::Auto, &[nvenc(true)]), Some("killed"), (Broken, "encoders_fail")),
        (told(Wanted::Off, &[]), Some("killed"), (Note, "encoders_off")),
    ] {
        let trials = Trials { processor: processor.map(str::to_owned), silicon };
        case(Check::Encoders, &|facts| facts.trials = Some(trials.clone()), &[expected]);
    }

    let cage = |files, network, calls| Some(Ok(Report { files, network, calls, landlock: 1 }));
    case(Check::Cage, &|facts| facts.cage = cage(true, false, true), &[(Note, "cage_no_network")]);
    let no_walls = [(Note, "cage_no_files"), (Note, "cage_no_network"), (Note, "cage_no_calls")];
    case(Check::Cage, &|facts| facts.cage = cage(false, false, false), &no_walls);
    case(Check::Cage, &|facts| facts.cage = Some(Err("timed out".into())), &[(Note, "cage_untried")]);

    let tried = |http: PortState, https: PortState| {
        let port = |number, flag, state| Port { number, flag, state };
        Some(Ports::Tried(vec![port(3001, "http-port", http), port(3443, "https-port", https)]))
    };
    let nowhere = || PortState::NoAddress([192, 0, 2, 1].into());
    case(Check::Ports, &|facts| facts.ports = tried(PortState::Free, PortState::Free), &[(Good, "ports_free")]);
    let any = |flag| Port { number: 0, flag, state: PortState::Free };
    case(Check::Ports, &|facts| facts.ports = Some(Ports::Tried(vec![any("http-port"), any("https-port")])), &[(Good, "ports_any")]);
    case(
        Check::Ports,
        &|facts| facts.ports = tried(PortState::Taken(Some(("nginx".into(), 9))), PortState::Free),
        &[(Broken, "port_taken")],
    );
    let both = [(Broken, "port_forbidden"), (Broken, "port_taken_by_stranger")];
    case(Check::Ports, &|facts| facts.ports = tried(PortState::Forbidden, PortState::Taken(None)), &both);
    case(Check::Ports, &|facts| facts.ports = tried(nowhere(), nowhere()), &[(Broken, "port_no_address")]);
    case(Check::Ports, &|facts| facts.ports = tried(PortState::Free, PortState::Unusable("no".into())), &[(Broken, "port_unusable")]);

    for (state, expected) in [
        (FolderState::Absent, (Good, "disk_good")),
        (FolderState::Open, (Note, "folder_open")),
        (FolderState::Unusable("read-only".into()), (Broken, "folder_unusable")),
        (FolderState::Silent, (Broken, "folder_silent")),
    ] {
        case(Check::Disk, &|facts| facts.folders[1].state = state.clone(), &[expected]);
    }
    let space = |free: u64, asked: u64, budget: u64, free_for_data: u64| {
        Some(Space { free, free_for_data, used: 0, reserve: 2_000_000_000, asked, budget })
    };
    for (fact, expected) in [
        (space(u64::MAX, 9, 9, u64::MAX), vec![(Good, "disk_good")]),
        (space(7_000_000_000, 9, 9, 50_000_000), vec![(Good, "disk_good")]),
        (space(6_999_999_999, 9, 9, 50_000_000), vec![(Note, "disk_tight")]),
        (space(2_000_000_000, 9, 9, 50_000_000), vec![(Broken, "disk_full")]),
        (space(0, 9, 0, 0), vec![(Broken, "disk_full"), (Note, "disk_budget"), (Broken, "disk_data_full")]),
        (space(u64::MAX, 9, 8, u64::MAX), vec![(Note, "disk_budget")]),
    ] {
        case(Check::Disk, &|facts| facts.space = fact, &expected);
    }
    case(Check::Disk, &|facts| facts.space = None, &[]);

    for (state, expected) in [
        (Soundness::Absent, (Good, "database_none")),
        (Soundness::Damaged("page 3".into()), (Broken, "database_damaged")),
        (Soundness::Newer, (Broken, "database_newer")),
        (Soundness::Unreadable("no".into()), (Broken, "database_unreadable")),
    ] {
        case(
            Check::Database,
            &|facts| facts.database = Some(Database { path: "/db".into(), state: state.clone(), aside: None }),
            &[expected],
        );
        let aside = Some((at(NOW), "/db.broken-1".into()));
        let both = [expected, (Note, "database_set_aside")];
        case(
            Check::Database,
            &|facts| facts.database = Some(Database { path: "/db".into(), state: state.clone(), aside: aside.clone() }),
            &both,
        );
    }

    let served = |authority: Option<i64>, days: i64, lacking: bool| Certificate::Served {
        authority_until: authority.map(|days| at(NOW + days * DAY)),
        until: at(NOW + days * DAY),
        lacking: lacking.then(|| [10, 0, 0, 1].into()).into_iter().collect(),
    };
    for (fact, expected) in [
        (Certificate::ToBeMade, vec![(Good, "certificate_none")]),
        (Certificate::Unusable("no key".into()), vec![(Broken, "certificate_unusable")]),
        (Certificate::Authority { until: at(NOW + 31 * DAY) }, vec![(Good, "certificate_at_start")]),
        (Certificate::Authority { until: at(NOW + 29 * DAY) }, vec![(Note, "authority_ends")]),
        (Certificate::Authority { until: at(NOW) }, vec![(Broken, "authority_over")]),
        (served(None, 7, false), vec![(Good, "certificate_yours")]),
        (served(None, 6, false), vec![(Note, "certificate_ends")]),
        (served(None, 0, false), vec![(Broken, "certificate_over")]),
        (served(Some(400), 90, true), vec![(Note, "certificate_lacks")]),
        (served(Some(5), 5, true), vec![(Note, "authority_ends"), (Note, "certificate_ends"), (Note, "certificate_lacks")]),
        (served(Some(-1), -1, false), vec![(Broken, "authority_over"), (Broken, "certificate_over")]),
    ] {
        case(Check::Certificate, &|facts| facts.certificate = Some(fact.clone()), &expected);
    }

    let discovery = |switched_off, alone, address: bool, obstacle: bool| Discovery {
        switched_off,
        alone,
        address: address.then(|| [192, 168, 1, 20].into()),
        obstacle: obstacle.then(|| "permission denied".into()),
    };
    for (fact, expected) in [
        (discovery(true, false, true, false), "discovery_off"),
        (discovery(true, true, true, true), "discovery_alone"),
        (discovery(false, false, false, true), "discovery_no_address"),
        (discovery(false, false, true, true), "discovery_impossible"),
    ] {
        case(Check::Discovery, &|facts| facts.discovery = Some(fact.clone()), &[(Note, expected)]);
    }

    let torrents = |dht, trackers, private, nodes: Option<(usize, u64)>| Torrents {
        mock: false,
        dht,
        trackers,
        private,
        nodes: nodes.map(|(nodes, seconds)| (nodes, Duration::from_secs(seconds))),
    };
    for (fact, expected) in [
        (torrents(true, true, false, None), vec![(Good, "torrents_good")]),
        (torrents(true, true, false, Some((1, 500))), vec![(Good, "torrents_good")]),
        (torrents(true, true, false, Some((0, 120))), vec![(Note, "torrents_dht_silent")]),
        (torrents(true, false, false, Some((0, 120))), vec![(Note, "torrents_dht_silent"), (Note, "torrents_no_trackers")]),
        (torrents(false, true, false, None), vec![(Note, "torrents_no_dht")]),
        (Torrents { mock: true, ..torrents(false, true, true, None) }, vec![(Note, "torrents_mock")]),
        (torrents(false, false, true, None), vec![(Note, "torrents_alone"), (Note, "torrents_private")]),
    ] {
        case(Check::Torrents, &|facts| facts.torrents = Some(fact), &expected);
    }

    for (now, newest, expected) in [
        (NOW, None, (Good, "clock_good")),
        (NOW, Some(NOW + 3600), (Good, "clock_good")),
        (NOW, Some(NOW + 3601), (Note, "clock_back")),
        (0, None, (Broken, "clock_wrong")),
        (1_735_689_599, None, (Broken, "clock_wrong")),
        (4_102_444_800, Some(NOW), (Broken, "clock_wrong")),
    ] {
        case(Check::Clock, &|facts| facts.clock = Some(Clock { now: at(now), newest: newest.map(at) }), &[expected]);
    }
    let late = |facts: &mut Facts| {
        facts.database = None;
        facts.late.insert(Check::Database);
    };
    case(Check::Database, &late, &[(Note, "late")]);
    cases
}

#[test]
fn whoever_is_well_hears_one_good_sentence_for_each_check() {
    let found = judged(&healthy());
    let checks: Vec<_> = found.iter().map(|finding| (finding.check, finding.level)).collect();
    let expected = [
        Check::Server,
        Check::Ffmpeg,
        Check::Ffprobe,
        Check::Encoders,
        Check::Cage,
        Check::Ports,
        Check::Disk,
        Check::Database,
        Check::Certificate,
        Check::Discovery,
        Check::Torrents,
        Check::Clock,
    ];
    assert_eq!(checks, expected.map(|check| (check, Level::Good)), "{found:#?}");
    assert_eq!(judged(&Facts::default()), [], "what was not looked at is not judged");
}

#[test]
fn each_trouble_is_found_and_nothing_else() {
    let well = judged(&healthy());
    for (check, facts, expected) in cases() {
        let found = judged(&facts);
        let told: Vec<_> = found.iter().filter(|finding| finding.check == check).collect();
        let keys: Vec<_> = told.iter().map(|finding| (finding.level, finding.message_key.as_str())).collect();
        assert_eq!(keys, expected, "{facts:#?}");
        let others = |found: &[Finding]| found.iter().filter(|finding| finding.check != check).cloned().collect::<Vec<_>>();
        if facts.trials.is_some() {
            assert_eq!(others(&found), others(&well), "{check:?}");
        }
    }
}

/// No key without a case, none without its sentence, no sentence with a hole.
#[test]
fn every_sentence_is_said_and_whole() {
    let all = cases().into_iter().map(|(_, facts, _)| facts).chain([healthy()]);
    let found: Vec<_> = all.flat_map(|facts| judged(&facts)).collect();
    let said: BTreeSet<_> = found.iter().map(|finding| finding.message_key.as_str()).collect();
    let known: BTreeSet<_> = SENTENCES.iter().map(|(key, _)| *key).collect();
    assert_eq!(said, known);
    for finding in found {
        assert!(!finding.message.contains(['{', '}']), "{}", finding.message);
        assert!(finding.message.chars().next().is_some_and(|first| !first.is_whitespace()) && finding.message.ends_with('.'));
        let (_, sentence) = SENTENCES.iter().find(|(key, _)| *key == finding.message_key).expect("known");
        for name in finding.message_params.keys() {
            assert!(sentence.contains(&format!("{{{name}}}")), "{name} does not stand in: {sentence}");
        }
    }
}

#[test]
fn what_to_do_is_said_with_names_and_numbers() {
    let sentence = |change: &dyn Fn(&mut Facts), key: &str| {
        let mut facts = healthy();
        change(&mut facts);
        judged(&facts).into_iter().find(|finding| finding.message_key == key).unwrap_or_else(|| panic!("{key}")).message
    };
    let taken = Port { number: 3443, flag: "https-port", state: PortState::Taken(Some(("nginx".into(), 12))) };
    assert_eq!(
        sentence(&|facts| facts.ports = Some(Ports::Tried(vec![taken.clone()])), "port_taken"),
        "Port 3443 is taken by nginx (process 12); end that, or choose another port with --https-port."
    );
    let missing = Program { asked: PathBuf::from("/opt/ffprobe"), state: ProgramState::Missing };
    let message = sentence(&|facts| facts.ffprobe = Some(missing.clone()), "program_missing");
    assert!(message.contains("/opt/ffprobe") && message.contains("apt install ffmpeg") && message.contains("--ffprobe"), "{message}");
    let full = Space { free: 1_500_000_000, free_for_data: u64::MAX, used: 0, reserve: 2 << 30, asked: 1, budget: 1 };
    let message = sentence(&|facts| facts.space = Some(full), "disk_full");
    assert!(message.starts_with("Only 1.5 GB are free and 2.1 GB of the disk are never touched"), "{message}");
    let lacking = Certificate::Served {
        authority_until: Some(at(NOW + 400 * DAY)),
        until: at(NOW + 90 * DAY),
        lacking: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
    };
    let message = sentence(&|facts| facts.certificate = Some(lacking.clone()), "certificate_lacks");
    assert!(message.contains("10.0.0.1, 10.0.0.2"), "{message}");
}
