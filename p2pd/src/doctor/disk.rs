//! The key, the disks, and the shares.

use std::io;
use std::path::Path;

use p2p_identity::{Identity, IdentityError, PeerId};
use p2p_proto::diagnosis::Check;
use p2p_service::state_dir::Room;

use crate::shares::{SetAside, ShareState, Unfit};

/// The key file: still there, still this peer's, and nobody else's to read.
pub(super) fn identity(path: &Path, id: PeerId) -> Check {
    const NAME: &str = "identity";
    let shown = path.display();
    match Identity::open(path) {
        Ok(found) if found.id() == id => Check::ok(NAME, format!("this peer is {id}")),
        Ok(found) => Check::problem(
            NAME,
            format!("{shown} holds another key ({}) than the one that this peer runs with ({id})", found.id()),
        )
        .advise("restore the key file from a backup before p2pd is restarted: with another key it is another peer"),
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Check::problem(NAME, format!("the key file {shown} is gone; the next start makes a new identity"))
                .advise("restore it from a backup before p2pd is restarted: with another key it is another peer")
        }
        Err(error) => Check::problem(NAME, error.to_string()),
    }
}

/// The disk of the state directory.
pub(super) fn state(path: &Path, room: io::Result<Room>) -> Check {
    const NAME: &str = "state";
    let shown = path.display();
    match room {
        Ok(room) => room
            .problem(path, "the catalog and the transfers are kept in it")
            .unwrap_or_else(|| Check::ok(NAME, format!("state directory {shown}, {} free", size(room.free)))),
        Err(error) => Check::problem(NAME, format!("the state directory {shown} cannot be used: {error}"))
            .advise("is its disk mounted, and does it belong to the user that p2pd runs as?"),
    }
}

/// Room for fetched files, against what shall stay free.
pub(super) fn space(share: &str, free: Result<u64, String>, reserve: u64) -> Check {
    const NAME: &str = "space";
    let key = "[transfers] reserve_bytes";
    match free {
        Err(why) => Check::problem(NAME, format!("fetched files cannot land in the share {share}: {why}"))
            .advise("`p2pctl share add PATH --downloads` lets them land elsewhere"),
        Ok(free) if free <= reserve => Check::problem(
            NAME,
            format!(
                "{} free in the share {share}, and {} shall stay free ({key}): nothing is fetched",
                size(free),
                size(reserve)
            ),
        )
        .advise("make room there, or `p2pctl share add PATH --downloads` on a larger disk"),
        Ok(free) if free / 2 <= reserve => Check::warning(
            NAME,
            format!("only {} more can be fetched into the share {share} ({key})", size(free - reserve)),
        )
        .advise("make room there, or `p2pctl share add PATH --downloads` on a larger disk"),
        Ok(free) => {
            Check::ok(NAME, format!("{} can be fetched into the share {share}", size(free - reserve)))
        }
    }
}

/// One share.
pub(super) fn share(row: &ShareState, tried: Result<&(), &Unfit>) -> Check {
    let name = format!("share {}", row.name);
    let shown = row.path.display();
    match (tried, &row.unavailable) {
        (Err(why), _) => {
            let check = Check::problem(name, format!("{shown}: {why}"));
            match why {
                Unfit::NotThere => {
                    check.advise("is its disk mounted? Its files are hidden, not forgotten, until it is back")
                }
                Unfit::NotADirectory => check.advise("share the directory around it"),
                Unfit::Unreadable | Unfit::ReadOnly | Unfit::NotWritable => check,
                Unfit::Other(_) => check.advise("`journalctl -k` shows what the system says of its disk"),
            }
        }
        (Ok(()), Some(why)) => Check::problem(name, why.clone()),
        (Ok(()), None) if !row.skipped.is_empty() => {
            let count = row.skipped.len();
            let first = row.skipped.first().map_or("", String::as_str);
            let what = if count == 1 { "1 file is".to_owned() } else { format!("{count} files are") };
            Check::warning(name, format!("{shown}: {what} not shared, such as {first}"))
                .advise("`p2pctl shares` lists them")
        }
        (Ok(()), None) => {
            let may = if row.downloads { "read and written" } else { "read" };
            let pending = match row.pending {
                0 => String::new(),
                pending => format!("; {pending} files still to be looked at"),
            };
            Check::ok(name, format!("{shown} can be {may}{pending}"))
        }
    }
}

/// A share that was added and is not in force.
pub(super) fn set_aside(aside: &SetAside) -> Check {
    let SetAside { name, reason } = aside;
    Check::warning(format!("share {name}"), format!("it was added and is not in force: {reason}"))
        .advise(format!("`p2pctl share remove {name}`, or change the configuration"))
}

fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20)];
    let unit = units.into_iter().find(|(_, bits)| bytes >> bits > 0);
    let (unit, bits) = unit.unwrap_or(("KiB", 10));
    format!("{:.1} {unit}", bytes as f64 / f64::from(1u32 << (bits - 10)) / 1024.0)
}

#[cfg(test)]
mod tests {
    use p2p_proto::control::Visibility;
    use p2p_proto::diagnosis::Verdict::{Ok as Well, Problem, Warning};

    use super::*;

    #[test]
    fn the_key_must_be_this_peers_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let id = Identity::load_or_create(&path).unwrap().id();
        assert_eq!(identity(&path, id).verdict, Well);
        assert_eq!(identity(&path, PeerId::from_bytes([7; 32])).verdict, Problem);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let exposed = identity(&path, id);
        assert!(exposed.verdict == Problem && exposed.found.contains("chmod 600"), "{exposed:?}");
        std::fs::remove_file(&path).unwrap();
        let gone = identity(&path, id);
        assert!(gone.verdict == Problem && !path.exists(), "{gone:?}");
        assert!(gone.advice[0].contains("backup"));
    }

    #[test]
    fn room_is_judged_against_the_reserve() {
        let verdict = |free, reserve| space("s", Ok(free), reserve).verdict;
        assert_eq!([verdict(100, 100), verdict(150, 100), verdict(1000, 100)], [Problem, Warning, Well]);
        assert_eq!(space("s", Err("away".to_owned()), 1).verdict, Problem);
        let told = space("s", Ok(3 << 30), 1 << 30).found;
        assert!(told.starts_with("2.0 GiB can be fetched"), "{told}");
        let room = |free, free_files, is_read_only| Ok(Room { free, free_files, is_read_only });
        let verdict = |room| state(Path::new("/x"), room).verdict;
        assert_eq!(verdict(room(1 << 20, None, false)), Problem);
        assert_eq!(verdict(room(1 << 30, Some(0), false)), Problem);
        assert_eq!(verdict(room(1 << 30, Some(9), true)), Problem);
        assert_eq!(verdict(room(1 << 30, Some(9), false)), Well);
        assert_eq!([size(1536), size(5 << 20), size(1 << 40)], ["1.5 KiB", "5.0 MiB", "1.0 TiB"]);
    }

    #[test]
    fn a_share_tells_what_is_wrong_with_it() {
        let row = ShareState {
            name: "iso".to_owned(),
            path: "/data/iso".into(),
            visible: Visibility::Network,
            downloads: true,
            unavailable: None,
            skipped: Vec::new(),
            pending: 0,
            added: true,
        };
        let well = share(&row, Ok(&()));
        assert_eq!((well.name.as_str(), well.verdict), ("share iso", Well));
        assert!(well.found.contains("read and written"), "{well:?}");
        assert_eq!(share(&row, Err(&Unfit::ReadOnly)).verdict, Problem);
        let skipping = ShareState { skipped: vec!["a: a link".to_owned()], ..row.clone() };
        let check = share(&skipping, Ok(&()));
        assert!(check.verdict == Warning && check.found.contains("1 file is not shared, such as a: a link"));
        let away = ShareState { unavailable: Some("it is empty".to_owned()), ..row };
        assert_eq!(share(&away, Ok(&())).verdict, Problem);
    }
}
