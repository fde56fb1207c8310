//! `balcony-server reset-ca`: throws the certificate authority of this server away, so that the next start makes a new one.
//!
//! It costs something on every phone of the house, so it says what and does nothing until it is told to a second time.

use std::path::Path;
use std::process::ExitCode;

use crate::data_dir::DataDir;
use crate::trust::ca::Authority;

const PRICE: &str = "\
This throws the certificate authority of this server away; its next start makes a new one.
Until then nobody can reach it over HTTPS, and afterwards every phone and browser has to trust the new certificate
as it once did the old one, and should forget the old one. Devices stay paired; streams, people and settings stay too.
It helps when somebody else may have got hold of ca.key, or to make an authority with or without --ca-unconstrained.
To do it: balcony-server reset-ca --yes";

/// Does it, if the price is accepted. Exit codes: 0 done, or nothing was there; 1 nothing was done.
pub fn run(data_dir: &Path, yes: bool) -> ExitCode {
    match reset(data_dir, yes) {
        Ok(sentence) => {
            eprintln!("{sentence}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

fn reset(data_dir: &Path, yes: bool) -> Result<String, String> {
    // A folder that is not there must not be made for this.
    if !data_dir.is_dir() {
        return Ok(format!("There is no data folder {}, so there is no certificate authority to reset.", data_dir.display()));
    }
    let data = DataDir::take(data_dir).map_err(|error| format!("Nothing was reset: {error}. Stop that server first."))?;
    if !Authority::is_in(data.path()) {
        return Ok(format!("There is no certificate authority in {}: the next start makes one.", data.path().display()));
    }
    if !yes {
        return Err(PRICE.to_owned());
    }
    Authority::reset(data.path())
        .map_err(|error| format!("The certificate authority in {} cannot be deleted: {error}.", data.path().display()))?;
    Ok("The certificate authority is gone. The next start makes a new one, which every phone and browser has to trust anew.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_authority() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        Authority::load_or_create(folder.path(), "Den", true).expect("made");
        folder
    }

    #[test]
    fn nothing_happens_without_a_second_word() {
        let folder = with_authority();
        let old = Authority::load_or_create(folder.path(), "Den", true).expect("there").fingerprint();
        let sentence = reset(folder.path(), false).expect_err("refused");
        assert!(sentence.contains("--yes") && sentence.contains("stay paired"), "{sentence}");
        assert_eq!(Authority::load_or_create(folder.path(), "Den", true).expect("there").fingerprint(), old);

        reset(folder.path(), true).expect("reset");
        assert!(!Authority::is_in(folder.path()));
        assert_ne!(Authority::load_or_create(folder.path(), "Den", true).expect("a new one").fingerprint(), old);
    }

    #[test]
    fn a_server_that_runs_keeps_its_own() {
        let folder = with_authority();
        let running = DataDir::take(folder.path()).expect("taken");
        let sentence = reset(folder.path(), true).expect_err("refused");
        assert!(sentence.contains(&format!("pid {}", std::process::id())), "{sentence}");
        assert!(Authority::is_in(folder.path()));
        drop(running);
        reset(folder.path(), true).expect("reset");
    }

    #[test]
    fn where_nothing_is_nothing_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        assert!(reset(&data, true).expect("fine").contains("no data folder"));
        assert!(!data.exists());
        std::fs::create_dir(&data).expect("made");
        assert!(reset(&data, false).expect("fine").contains("the next start makes one"));
    }

    #[test]
    fn half_an_authority_can_be_cleared_away() {
        let folder = with_authority();
        std::fs::remove_file(folder.path().join("ca.pem")).expect("deleted");
        reset(folder.path(), true).expect("reset");
        assert!(!folder.path().join("ca.key").exists());
    }
}
