//! The state directory and what is kept in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::http::{HeaderMap, header};
use p2p_service::bearer::{authorized, load_or_create_token};
use p2p_service::state_dir::{Room, StateDir, StateDirError, write_private};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_is_made_private_and_a_second_daemon_is_told_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lib/p2pd");
    let state = StateDir::open(&path).unwrap();
    assert_eq!((state.path(), state.join("key")), (path.as_path(), path.join("key")));
    assert_eq!(mode(&path), 0o700);

    let refusal = StateDir::open(&path).unwrap_err().to_string();
    let expected = format!(
        "state directory {} is in use by another daemon (pid {}); stop it or choose another with --state-dir",
        path.display(),
        std::process::id()
    );
    assert_eq!(refusal, expected);

    drop(state);
    // A longer number than any process's, as a dead daemon might have left.
    fs::write(path.join("lock"), "99999999999999999999\n").unwrap();
    let _state = StateDir::open(&path).unwrap();
    assert_eq!(fs::read_to_string(path.join("lock")).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn a_directory_that_a_group_may_enter_stays_so_and_what_is_private_in_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    assert_eq!(mode(dir.path()), 0o750);
    assert_eq!(mode(&dir.path().join("lock")), 0o600);

    let fresh = state.private("fresh.sqlite").unwrap();
    assert_eq!(mode(&fresh), 0o600);
    let open = dir.path().join("open.sqlite");
    fs::write(&open, "kept").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(state.private("open.sqlite").unwrap(), open);
    assert_eq!((mode(&open), fs::read_to_string(&open).unwrap()), (0o600, "kept".to_owned()));

    fs::create_dir(dir.path().join("taken")).unwrap();
    assert!(matches!(state.private("taken"), Err(StateDirError::Io { .. })));
}

#[test]
fn what_is_no_directory_or_anothers_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(StateDir::open(&file), Err(StateDirError::NotADirectory { .. })));
    assert!(matches!(StateDir::open(file.join("below")), Err(StateDirError::Io { .. })));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateDirError::Foreign { owner: 12345, .. })));
    } else {
        assert!(matches!(StateDir::open("/"), Err(StateDirError::Foreign { owner: 0, .. })));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateDirError::NotWritable { .. })));
    }
}

#[test]
fn private_files_are_replaced_whole_and_never_readable_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, "a longer text that was public before").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    write_private(&path, b"secret").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"secret");
    assert_eq!(mode(&path), 0o600);

    fs::create_dir(dir.path().join("taken")).unwrap();
    fs::write(dir.path().join("taken/file"), "").unwrap();
    let error = write_private(dir.path().join("taken"), b"secret").unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}", dir.path().join("taken").display())), "{error}");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "a failure leaves nothing behind: {names:?}");
}

#[test]
fn a_disk_on_which_nothing_can_be_kept_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let problem = |free, free_files, is_read_only| {
        let found = Room { free, free_files, is_read_only }.problem(dir.path(), "it is used");
        found.map(|check| (check.found, check.advice.concat()))
    };
    for free_files in [None, Some(1)] {
        assert_eq!(problem(64 << 20, free_files, false), None);
    }
    let (found, advice) = problem((63 << 20) + 1, None, false).unwrap();
    assert_eq!(found, format!("63 MiB free for the state directory {}", dir.path().display()));
    assert_eq!(advice, "make room there: it is used");
    assert!(problem(u64::MAX, Some(0), false).unwrap().1.contains("df -i"));
    assert!(problem(0, Some(0), true).unwrap().0.contains("read-only"));
    assert!(!Room::of(dir.path()).unwrap().is_read_only, "a directory was made there just now");
    assert!(Room::of(&dir.path().join("missing")).is_err());
}

#[test]
fn the_token_is_made_once_and_checked_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let token = load_or_create_token(&path).unwrap();
    assert_eq!(token.len(), 64);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(load_or_create_token(&path).unwrap(), token);

    let with = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        headers
    };
    let right = format!("Bearer {token}");
    assert!(authorized(&with(&[&right]), &token));
    assert!(authorized(&with(&[&format!("bearer {token}")]), &token));
    let wrong_end = format!("Bearer {}x", &token[..63]);
    for wrong in [
        &wrong_end,
        &right[..70],
        &format!("{right}0"),
        "Bearer ",
        "Bearer",
        &token,
        &format!("Basic {token}"),
    ] {
        assert!(!authorized(&with(&[wrong]), &token), "{wrong}");
    }
    assert!(!authorized(&with(&[]), &token));
    assert!(!authorized(&with(&[&right, &right]), &token));
    assert!(!authorized(&with(&["Bearer "]), ""), "an empty token is no token");

    fs::write(&path, "\n").unwrap();
    let error = load_or_create_token(&path).unwrap_err().to_string();
    assert!(error.contains("remove it and a new one is made"), "{error}");
}
