//! Links as people paste them, as search sites break them, and as somebody hostile writes them.

use proptest::prelude::*;

use super::*;

const HEX: &str = "dd8255ecdc7ca55fb0bbf81323d87062db1f6d1c";
const BASE32_FORM: &str = "3WBFL3G4PSSV7MF37AJSHWDQMLNR63I4";

fn parsed(text: &str) -> Magnet {
    Magnet::parse(text).unwrap_or_else(|error| panic!("{text:.200?}: {error}"))
}

fn with(rest: &str) -> Magnet {
    parsed(&format!("magnet:?xt=urn:btih:{HEX}&{rest}"))
}

#[test]
fn finds_the_hash_however_it_was_copied() {
    let lower = BASE32_FORM.to_ascii_lowercase();
    let upper = HEX.to_ascii_uppercase();
    let v2 = "a".repeat(64);
    for text in [
        HEX.to_owned(),
        upper.clone(),
        BASE32_FORM.to_owned(),
        lower.clone(),
        format!("  {HEX}\r\n"),
        format!("magnet:?xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btih:{upper}"),
        format!("magnet:?xt=urn:btih:{BASE32_FORM}"),
        format!("magnet:?xt=urn:btih:{lower}"),
        format!("MAGNET:?XT=URN:BTIH:{HEX}"),
        format!("\u{feff} \t\nMagnet:?xt=urn:btih:{HEX}\u{200b}\u{a0}"),
        format!("magnet://?xt=urn:btih:{HEX}"),
        format!("magnet:xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn%3Abtih%3a{HEX}"),
        format!("magnet%3A%3Fxt%3Durn%3Abtih%3A{HEX}%26dn%3DFilm"),
        format!("magnet:?dn=Film&amp;xt=urn:btih:{HEX}&amp;tr=http://t.example/a"),
        format!("magnet:?dn=Film&amp;amp;xt=urn:btih:{HEX}"),
        format!("magnet:?dn=Film&#38;xt=urn:btih:{HEX}"),
        format!("magnet:?xt.1=urn:btih:{HEX}"),
        format!("magnet:?xt.1=urn:sha1:YNCKHTQCWBTRNJIV4WNAE52SJUQCZO5C&xt.2=urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btmh:1220{v2}&xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btmh:1220{v2}"),
        format!("magnet:?xt=urn:btih:oops&xt=urn:btih:{HEX}"),
        format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{}", "1".repeat(40)),
        format!("magnet:?xt=urn:btih:{HEX}#play"),
        format!("magnet:?xt=urn:btih:{}\r\n {}", &HEX[..20], &HEX[20..]).replace("\n ", "\n"),
    ] {
        assert_eq!(parsed(&text).info_hash.to_string(), HEX, "{text:?}");
    }
}

#[test]
fn says_what_is_wrong() {
    let v2 = "a".repeat(64);
    for (text, expect) in [
        ("", MagnetError::NotAMagnet),
        ("   ", MagnetError::NotAMagnet),
        ("magnet", MagnetError::NotAMagnet),
        ("https://example.org/film.torrent", MagnetError::NotAMagnet),
        ("\u{1f37f} film", MagnetError::NotAMagnet),
        ("magn\u{e9}t:?xt=urn:btih:", MagnetError::NotAMagnet),
        ("magnet:", MagnetError::NoHash),
        ("magnet:?", MagnetError::NoHash),
        ("magnet:?dn=Film", MagnetError::NoHash),
        ("magnet:?xt=urn:ed2k:31D6CFE0D16AE931B73C59D7E0C089C0", MagnetError::NoHash),
        ("magnet:?xt=urn:btih:", MagnetError::HashLength(0)),
        (&format!("magnet:?xt=urn:btih:{}", &HEX[1..]), MagnetError::HashLength(39)),
        (&format!("{HEX}0"), MagnetError::HashLength(41)),
        (&format!("magnet:?xt=urn:btih:{}g", &HEX[1..]), MagnetError::HashCharacter('g')),
        (&format!("magnet:?xt=urn:btih:{}\u{e9}", &HEX[1..]), MagnetError::HashCharacter('\u{e9}')),
        (&format!("magnet:?xt=urn:btih:{}%00", &HEX[1..]), MagnetError::HashCharacter('\0')),
        (&format!("magnet:?xt=urn:btih:{}1", &BASE32_FORM[1..]), MagnetError::HashCharacter('1')),
        (&"0".repeat(40), MagnetError::AllZero),
        (&format!("magnet:?xt=urn:btih:{}", "0".repeat(40)), MagnetError::AllZero),
        (&format!("magnet:?xt=urn:btih:{}", "a".repeat(32)), MagnetError::AllZero),
        (&format!("magnet:?xt=urn:btmh:1220{v2}"), MagnetError::V2Only),
        (&format!("magnet:?xt=urn:btih:{v2}"), MagnetError::V2Only),
        (&v2, MagnetError::V2Only),
        (&format!("1220{v2}"), MagnetError::V2Only),
        (&format!("magnet:?xt=urn:btih:{HEX}&dn={}", "x".repeat(MAX_LINK_LEN)), MagnetError::TooLong),
        (&"x".repeat(1 << 20), MagnetError::TooLong),
    ] {
        assert_eq!(Magnet::parse(text), Err(expect), "{:.60?}", text);
    }
}

#[test]
fn sentences_say_what_to_do() {
    let errors = [
        MagnetError::NotAMagnet,
        MagnetError::NoHash,
        MagnetError::HashLength(39),
        MagnetError::HashCharacter('\0'),
        MagnetError::AllZero,
        MagnetError::V2Only,
        MagnetError::TooLong,
    ];
    let sentences = errors.map(|error| error.to_string()).join("\n");
    insta::assert_snapshot!(sentences, @r"
    This is not a magnet link. Paste a link that begins with magnet:?xt=urn:btih: or an info hash of 40 characters.
    The magnet link names no torrent: its xt=urn:btih: part is missing. Copy the whole link again.
    The info hash has 39 characters instead of 40 (or 32). Part of it was lost: copy the whole link again.
    The info hash contains '\0', which cannot be part of one. Copy the link again.
    The info hash is all zeros, so it names no torrent. Look for another link.
    v2 only torrents are not supported. Look for a link with xt=urn:btih: in it.
    The magnet link is longer than 8 KiB. Remove some of its trackers (the parts that begin with &tr=).
    ");
}

#[test]
fn exactly_eight_kibibytes_are_read() {
    let link = format!("magnet:?xt=urn:btih:{HEX}&dn=");
    let full = format!("{link}{}", "x".repeat(MAX_LINK_LEN - link.len()));
    assert_eq!(parsed(&format!("  {full}  ")).name.map(|name| name.len()), Some(MAX_NAME_CHARS));
    assert_eq!(Magnet::parse(&format!("{full}x")), Err(MagnetError::TooLong));
}

#[test]
fn names_are_one_clean_line() {
    for (value, name) in [
        ("Big+Buck+Bunny", Some("Big Buck Bunny")),
        ("C%2B%2B%20film", Some("C++ film")),
        ("Caf%C3%A9 %E2%98%BA", Some("Caf\u{e9} \u{263a}")),
        ("%FF%FEbroken", Some("\u{fffd}\u{fffd}broken")),
        ("a%00b%0Ac%1B%5B31m%07", Some("a b c [31m")),
        ("%E2%80%AEgpj.exe", Some("gpj.exe")),
        ("..%2F..%2Fetc%2Fpasswd", Some(".._.._etc_passwd")),
        ("C%3A%5Cfilm", Some("C:_film")),
        ("100%", Some("100%")),
        ("%zz", Some("%zz")),
        ("..", None),
        (".", None),
        ("", None),
        ("%20%0A", None),
    ] {
        assert_eq!(with(&format!("dn={value}")).name.as_deref(), name, "{value:?}");
    }
    assert_eq!(with("dn=&dn=First&dn=Second").name.as_deref(), Some("First"));
    assert_eq!(with(&format!("dn={}", "\u{e9}".repeat(1000))).name, Some("\u{e9}".repeat(MAX_NAME_CHARS)));
}

#[test]
fn trackers_are_checked_and_normalised() {
    for (text, expect) in [
        ("udp://tracker.example:1337/announce", Some("udp://tracker.example:1337/announce")),
        ("UDP://Tracker.Example:80", Some("udp://tracker.example:80")),
        ("http://tracker.example/announce?passkey=ab+c", Some("http://tracker.example/announce?passkey=ab+c")),
        ("HTTPS://tracker.example:443/announce#x", Some("https://tracker.example/announce")),
        ("http://b\u{fc}cher.example/a", Some("http://xn--bcher-kva.example/a")),
        ("udp://b%C3%BCcher.example:6969/a", Some("udp://xn--bcher-kva.example:6969/a")),
        ("udp://[2001:db8::1]:6969/a", Some("udp://[2001:db8::1]:6969/a")),
        ("udp://0x7f.1:6969/a", Some("udp://127.0.0.1:6969/a")),
        ("http://2130706433/a", Some("http://127.0.0.1/a")),
        ("udp://1.2.3.4:6969", Some("udp://1.2.3.4:6969")),
        ("udp://tracker.example/announce", None),
        ("udp://tracker.example:0/announce", None),
        ("http://tracker.example:0/announce", None),
        ("http://tracker.example:65536/announce", None),
        ("http://user:secret@tracker.example/announce", None),
        ("http://user@tracker.example/announce", None),
        ("http://:secret@tracker.example/announce", None),
        ("udp://user@tracker.example:6969", None),
        ("http:\\\\tracker.example\\a", Some("http://tracker.example/a")),
        ("http://", None),
        ("udp://:6969", None),
        ("udp://a b:6969", None),
        ("udp://a%20b:6969", None),
        ("udp://1.2.3.4.5:6969", None),
        ("http://[::1", None),
        ("wss://tracker.example/", None),
        ("file:///etc/passwd", None),
        ("ftp://tracker.example/", None),
        ("gopher://tracker.example:70/", None),
        ("javascript:alert(1)", None),
        ("tracker.example:6969", None),
        ("", None),
    ] {
        let normal = normalised_tracker(text);
        assert_eq!(normal.as_deref(), expect, "{text:?}");
        assert_eq!(normal.as_deref().and_then(normalised_tracker), normal, "normal form is stable: {text:?}");
    }
    let label = "a".repeat(60);
    assert_eq!(normalised_tracker(&format!("http://{label}.{label}.{label}.{label}.{label}/")), None);
    assert_eq!(normalised_tracker(&format!("http://tracker.example/{}", "a".repeat(2000))), None);
}

#[test]
fn tells_where_a_tracker_leads() {
    let name = |host: &str, port| Some(Reach::Name { host: host.to_owned(), port });
    for (tracker, expect) in [
        ("udp://tracker.example:1337", name("tracker.example", 1337)),
        ("http://tracker.example/", name("tracker.example", 80)),
        ("https://tracker.example/", name("tracker.example", 443)),
        ("http://8.8.8.8/", Some(Reach::PublicLiteral([8, 8, 8, 8].into()))),
        ("udp://[::ffff:8.8.8.8]:1", Some(Reach::PublicLiteral([8, 8, 8, 8].into()))),
        ("udp://[2a00:1450::1]:1", Some(Reach::PublicLiteral("2a00:1450::1".parse().unwrap()))),
        ("http://127.1/", Some(Reach::PrivateLiteral)),
        ("udp://0x7f000001:1", Some(Reach::PrivateLiteral)),
        ("http://017700000001/", Some(Reach::PrivateLiteral)),
        ("http://169.254.169.254/latest/meta-data", Some(Reach::PrivateLiteral)),
        ("http://[::1]/", Some(Reach::PrivateLiteral)),
        ("udp://[::ffff:192.168.1.1]:1", Some(Reach::PrivateLiteral)),
        ("http://\u{ff11}27.0.0.1/", Some(Reach::PrivateLiteral)),
        ("http://LOCALHOST/", Some(Reach::PrivateLiteral)),
        ("udp://localhost.:1", Some(Reach::PrivateLiteral)),
        ("udp://x.localhost:1", Some(Reach::PrivateLiteral)),
        ("udp://notlocalhost:1", name("notlocalhost", 1)),
        ("ftp://8.8.8.8/", None),
    ] {
        assert_eq!(tracker_reach(tracker), expect, "{tracker:?}");
    }
}

#[test]
fn special_addresses_are_not_public() {
    for private in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::8.8.8.8",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:100.64.0.1",
        "::ffff:0:8.8.8.8",
        "64:ff9b::192.168.0.1",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:808:808::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:c0a8:101::1",
        "2002:a00:1::1",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
        "4000::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ] {
        assert!(!is_public(private.parse().unwrap()), "{private}");
    }
    for public in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2600::1",
        "2a00:1450::1",
        "2002:808:808::1",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
        "3ffe::1",
        "3fff:1000::1",
    ] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
}

#[test]
fn peers_are_addresses_only() {
    let magnet = with(
        "x.pe=1.2.3.4:6881&x.pe=[2a00::1]:6881&x.pe=%5B2a00%3A%3A2%5D%3A6881&x.pe=host.example:6881&x.pe=1.2.3.4:6881\
         &x.pe=[::ffff:1.2.3.4]:6881&x.pe=1.2.3.4:0&x.pe=1.2.3.4&x.pe=0.0.0.0:1&x.pe=[::]:1&x.pe=224.0.0.1:1&x.pe=255.255.255.255:1\
         &x.pe=127.0.0.1:4242&x.pe=1.2.3.4:65536&x.pe=2a00::1:6881&X.PE.1=5.6.7.8:9&x.pe=",
    );
    let peers: Vec<_> = magnet.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["1.2.3.4:6881", "[2a00::1]:6881", "[2a00::2]:6881", "127.0.0.1:4242", "5.6.7.8:9"]);
}

#[test]
fn selections_are_never_counted_out() {
    for (so, expect) in [
        ("0", vec![0]),
        ("7,0,2-4,3", vec![0, 2, 3, 4, 7]),
        (" 1 , 2", vec![1, 2]),
        ("4-2", vec![]),
        ("-1,a,1-,1-2-3,99999999999", vec![]),
        ("4294967295", vec![u32::MAX]),
        ("4294967294-18446744073709551615", vec![u32::MAX - 1, u32::MAX]),
        ("0-18446744073709551614", (0..MAX_SELECTED as u32).collect()),
        ("0-4294967295,0-4294967295", (0..MAX_SELECTED as u32).collect()),
    ] {
        assert_eq!(with(&format!("so={so}")).select, expect, "{so:?}");
    }
}

#[test]
fn everything_is_bounded() {
    let short = (0..500).map(|n| format!("&tr=udp:t{n}")).collect::<String>();
    assert!(with(&short).trackers.is_empty());
    let many = (0..200).map(|n| format!("&tr=udp://t{n}:1/")).collect::<String>();
    assert_eq!(with(&many).trackers.len(), MAX_TRACKERS);
    let peers = (1..300).map(|n| format!("&x.pe=1.2.3.4:{n}")).collect::<String>();
    assert_eq!(with(&peers).peers.len(), MAX_PEERS);
    let indexes = (0..1000).map(|n| format!("{n},")).collect::<String>();
    assert_eq!(with(&format!("so={indexes}")).select.len(), MAX_SELECTED);
    let wide = (0..8).map(|n| format!("&tr=http://t{n}/{}", "!".repeat(900))).collect::<String>();
    let magnet = with(&wide);
    assert_eq!(magnet.trackers.len(), 2, "the normal form stays within the limit");
    assert_eq!(parsed(&magnet.to_link()), magnet);
}

#[test]
fn only_what_is_understood_goes_on() {
    let magnet = parsed(&format!(
        "MAGNET:?dn=Big%20Buck%20Bunny&xt=urn:btih:{BASE32_FORM}&tr=udp%3A%2F%2Ftracker.example%3A1337%2Fannounce&amp;tr.1=http://u:p@evil/\
         &tr.2=https://tracker.example/a?k=1%262&tr=udp://tracker.example:1337/announce&x.pe=10.0.0.7:6881&so=0-18446744073709551614\
         &ws=http%3A%2F%2F127.0.0.1%2F&xs=http://127.0.0.1/x.torrent&as=file:///etc/passwd&kt=a&mt=b&nonsense&=&=x"
    ));
    insta::assert_snapshot!(
        magnet.to_link().replace('&', "\n&"),
        @r"
    magnet:?xt=urn:btih:dd8255ecdc7ca55fb0bbf81323d87062db1f6d1c
    &dn=Big%20Buck%20Bunny
    &tr=udp%3A%2F%2Ftracker.example%3A1337%2Fannounce
    &tr=https%3A%2F%2Ftracker.example%2Fa%3Fk%3D1%262
    "
    );
    assert_eq!(magnet.peers, ["10.0.0.7:6881".parse().unwrap()]);
}

#[test]
fn info_hash_in_json_is_hex() {
    let hash: InfoHash = BASE32_FORM.parse().unwrap();
    let deserialiser = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(HEX);
    assert_eq!(<InfoHash as serde::Deserialize>::deserialize(deserialiser), Ok(hash));
    assert_eq!(format!("{hash} {hash:?}"), format!("{HEX} InfoHash({HEX})"));
    let zero = "0".repeat(40);
    let deserialiser = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&zero);
    assert!(<InfoHash as serde::Deserialize>::deserialize(deserialiser).is_err());
}

fn any_link() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        any::<String>(),
        Just(format!("urn:btih:{HEX}")),
        "urn:bt[im]h:[0-9a-zA-Z]{30,42}",
        "(udp|http|https)://([a-z0-9%.@:\\[\\]]{1,30}):[0-9]{1,6}/\\PC{0,10}",
        "\\[?[0-9a-f:.]{2,20}\\]?:[0-9]{1,6}",
        "([0-9]{1,21}(-[0-9]{1,21})?,){0,5}",
        "(%[0-9a-f]{2}){0,20}",
    ];
    let key = prop_oneof![Just("xt"), Just("dn"), Just("tr"), Just("x.pe"), Just("so"), Just("amp;tr.2"), Just("ws")];
    proptest::collection::vec((key, value), 0..20)
        .prop_map(|pairs| pairs.iter().fold("magnet:?x=1".to_owned(), |link, (key, value)| format!("{link}&{key}={value}")))
}

fn any_good_magnet() -> impl Strategy<Value = Magnet> {
    let tracker = "(udp|http|https)://[a-z0-9-]{1,12}\\.example:[1-9][0-9]{0,3}/[^\\s]{0,12}";
    let hash = any::<[u8; 20]>().prop_filter("not zero", |bytes| *bytes != [0; 20]);
    (hash, any::<String>(), proptest::collection::vec(tracker, 0..60)).prop_map(|(hash, name, trackers)| {
        let hash = InfoHash(hash);
        let name = utf8_percent_encode(&name.chars().take(300).collect::<String>(), ENCODED).to_string();
        let trackers = trackers.iter().map(|tracker| parameter("tr", tracker)).collect::<String>();
        let link = format!("magnet:?xt=urn:btih:{hash}&dn={name}{trackers}");
        Magnet::parse(&link).unwrap_or_else(|_| Magnet::of(hash))
    })
}

proptest! {
    #[test]
    fn any_text_is_survived(text in prop_oneof![any::<String>(), any_link()]) {
        if let Err(error) = Magnet::parse(&text) {
            prop_assert!(error.to_string().len() < 200);
        }
    }

    #[test]
    fn normal_form_keeps_hash_name_and_trackers(magnet in prop_oneof![any_good_magnet(), any_link().prop_filter_map("a magnet", |link| Magnet::parse(&link).ok())]) {
        let link = magnet.to_link();
        prop_assert!(link.len() <= MAX_LINK_LEN && link.is_ascii());
        let again = Magnet { peers: magnet.peers.clone(), select: magnet.select.clone(), ..Magnet::parse(&link).expect("own link") };
        prop_assert_eq!(again, magnet);
    }

    #[test]
    fn hashes_survive_both_alphabets(bytes in any::<[u8; 20]>()) {
        prop_assume!(bytes != [0; 20]);
        prop_assert_eq!(InfoHash(bytes).to_string().parse(), Ok(InfoHash(bytes)));
        prop_assert_eq!(BASE32.encode(&bytes).to_ascii_lowercase().parse(), Ok(InfoHash(bytes)));
    }
}
