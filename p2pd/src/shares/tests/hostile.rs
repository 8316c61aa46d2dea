//! What must not be shared, nor opened.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::*;

fn mkfifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
}

fn fact_named(of: &Fact, text: &str) -> Fact {
    Fact { name: name(text), ..of.clone() }
}

async fn skips(house: &House, text: &str, reason: &str) {
    let start = Instant::now();
    let is_skipped =
        |rows: &[ShareState]| rows[0].skipped.iter().any(|line| line.contains(text) && line.contains(reason));
    while !is_skipped(&house.shares.rows()) {
        assert!(start.elapsed() < DEADLINE, "{text}: {:?}", house.shares.rows());
        house.pause().await;
    }
}

fn plant(share: &Path, outside: &Path) {
    std::fs::create_dir_all(outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    symlink(outside.join("secret"), share.join("link")).unwrap();
    symlink(outside, share.join("linked-dir")).unwrap();
    mkfifo(&share.join("fifo"));
    drop(std::os::unix::net::UnixListener::bind(share.join("socket")).unwrap());
    std::fs::write(share.join(OsStr::from_bytes(b"bad-\xff-name")), "x").unwrap();
    std::fs::write(share.join("esc\u{1b}[2J"), "x").unwrap();
    std::fs::create_dir(share.join(".p2p-partial")).unwrap();
    std::fs::write(share.join(".p2p-partial/part"), "x").unwrap();
    let deep = format!("{}/file", ["d"; 520].join("/"));
    // In steps: the path is over the limit of a name, and so would be that of a single call.
    let mut at = rustix::fs::open(share, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in deep.split('/').skip(1) {
        // The outermost may be there.
        let _ = rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU);
        at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    std::fs::write(share.join("zz-last"), "ok").unwrap();
}

async fn expect_only_the_last(house: &House) {
    house.has(&["zz-last"]).await;
    skips(house, "link", "symbolic link").await;
    skips(house, "linked-dir", "symbolic link").await;
    skips(house, "bad-\u{fffd}-name", "UTF-8").await;
    skips(house, "esc\\u{1b}[2J", "control character").await;
    skips(house, "d/d/d", "1024").await;
    let rows = house.shares.rows();
    assert!(!rows[0].skipped.iter().any(|line| line.chars().any(char::is_control)), "{rows:?}");
    assert!(
        !rows[0].skipped.iter().any(|line| line.contains("partial") || line.contains("fifo")),
        "{rows:?}"
    );
    house.shares.refresh().await.unwrap();
    assert_eq!(house.names().await, ["zz-last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_a_good_name_is_not_shared_and_most_of_it_is_said_to_be_so() {
    let outside = tempfile::tempdir().unwrap();
    let house = House::with(|share| plant(share, outside.path()), fast()).await;
    expect_only_the_last(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_when_it_appears_while_watched() {
    let outside = tempfile::tempdir().unwrap();
    let house = House::new().await;
    plant(&house.path(""), outside.path());
    expect_only_the_last(&house).await;
    std::fs::remove_file(house.path("link")).unwrap();
    house.shares.refresh().await.unwrap();
    let start = Instant::now();
    while house.shares.rows()[0].skipped.iter().any(|line| line.starts_with("link:")) {
        assert!(start.elapsed() < DEADLINE, "what is gone is still said to be skipped");
        house.pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_file_that_was_hashed_is_opened() {
    let outside = tempfile::tempdir().unwrap();
    let house = House::new().await;
    house.write("a.txt", "good");
    house.write("d/b.txt", "also");
    house.has(&["a.txt", "d/b.txt"]).await;
    let (fact, below) = (house.fact("a.txt").await.unwrap(), house.fact("d/b.txt").await.unwrap());
    let mut read = String::new();
    house.shares.open(&fact).unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "good");
    plant(&house.path(""), outside.path());
    let modified = std::fs::metadata(house.path("a.txt")).unwrap().modified().unwrap();
    // Links are refused, be it the file or a directory on the way, whatever they lead to.
    symlink(house.path("a.txt"), house.path("to-a")).unwrap();
    for text in ["link", "to-a", "fifo", "socket", "d"] {
        let refused = house.shares.open(&fact_named(&fact, text));
        assert!(matches!(refused, Err(OpenError::Changed { .. })), "{text}: {refused:?}");
    }
    for text in ["linked-dir/secret", "nothing", "a.txt/x"] {
        let refused = house.shares.open(&fact_named(&fact, text));
        assert!(matches!(refused, Err(OpenError::Gone { .. })), "{text}: {refused:?}");
    }
    for text in ["../outside", "/etc/passwd", "d/../../x", ".p2p-partial/part"] {
        assert!(FileName::parse(text).is_err(), "{text}");
    }
    let elsewhere = Fact { share: "nowhere".to_owned(), ..fact.clone() };
    assert!(matches!(house.shares.open(&elsewhere), Err(OpenError::NotShared { .. })));
    // The same length, the same time, another inode; then the same inode and another time; then another length.
    std::fs::write(house.path("new"), "evil").unwrap();
    let set_time = |name: &str| {
        std::fs::File::options().write(true).open(house.path(name)).unwrap().set_modified(modified).unwrap();
    };
    set_time("new");
    std::fs::rename(house.path("new"), house.path("a.txt")).unwrap();
    let opened = house.shares.open(&fact);
    assert!(matches!(opened, Err(OpenError::Changed { .. })), "{opened:?}");
    house.has_content("a.txt", "evil").await;
    std::fs::remove_dir_all(house.path("d")).unwrap();
    symlink(outside.path(), house.path("d")).unwrap();
    std::fs::write(outside.path().join("b.txt"), "also").unwrap();
    assert!(house.shares.open(&below).is_err());
    house.write("a.txt", "more");
    let changed = house.fact("a.txt").await.filter(|fact| fact.content == ContentHash::of(b"evil"));
    if let Some(stale) = changed {
        assert!(matches!(house.shares.open(&stale), Err(OpenError::Changed { .. })));
    }
    house.has_content("a.txt", "more").await;
    house.shares.open(&house.fact("a.txt").await.unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_opening_has_the_file_looked_at_again() {
    // Too late to be of help, all of them.
    let late = Duration::from_secs(3600);
    let house = House::timed(Timing { debounce: Duration::from_millis(50), rescan: late, ..fast() }).await;
    house.write("a.txt", "one");
    house.has(&["a.txt"]).await;
    let fact = house.fact("a.txt").await.unwrap();
    // Written through a name that is not watched.
    let outside = house.dir.path().join("outside");
    std::fs::hard_link(house.path("a.txt"), &outside).unwrap();
    std::fs::write(&outside, "two").unwrap();
    assert!(matches!(house.shares.open(&fact), Err(OpenError::Changed { .. })));
    house.has_content("a.txt", "two").await;
}
