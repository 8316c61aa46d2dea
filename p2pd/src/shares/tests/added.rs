//! Shares that users add and remove while the daemon runs.

use p2p_proto::control::AddShare;

use super::*;

/// May share everything.
const ROOT: u32 = 0;

fn asked(path: &Path) -> AddShare {
    let path = path.to_str().unwrap().to_owned();
    AddShare { path, name: None, visible: Visibility::Network, downloads: false }
}

impl House {
    /// A directory beside the share, with a file of that name in it.
    fn beside(&self, directory: &str, file: &str) -> PathBuf {
        let path = self.dir.path().canonicalize().unwrap().join(directory);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(file), file).unwrap();
        path
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_share_is_there_at_once_and_after_restart_and_reload() {
    let house = House::new().await;
    house.write("a.txt", "a");
    let path = house.beside("iso", "i.txt");
    let row = house.shares.add(asked(&path), ROOT).await.unwrap();
    assert_eq!((row.name.as_str(), row.path.as_path(), row.added), ("iso", path.as_path(), true));
    assert_eq!(row.unavailable, None);
    house.has(&["a.txt", "i.txt"]).await;
    let house = house.restart(|_| {}).await;
    house.has(&["a.txt", "i.txt"]).await;
    house.shares.reload(configs(house.dir.path())).await.unwrap();
    assert_eq!(house.names().await, ["a.txt", "i.txt"]);
    assert!(matches!(house.shares.remove("docs").await, Err(RemoveError::Configured { .. })));
    assert!(matches!(house.shares.remove("images").await, Err(RemoveError::Unknown { .. })));
    house.shares.remove("iso").await.unwrap();
    assert_eq!(house.names().await, ["a.txt"]);
    assert!(path.join("i.txt").exists(), "files stay where they are");
    let house = house.restart(|_| {}).await;
    assert_eq!(house.shares.rows().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fetched_files_land_where_the_user_says_until_that_is_removed() {
    let house = House::new().await;
    let path = house.beside("in", "x");
    house.shares.add(AddShare { downloads: true, ..asked(&path) }, ROOT).await.unwrap();
    assert_eq!(house.shares.downloads().share(), "in");
    house.shares.remove("in").await.unwrap();
    assert_eq!(house.shares.downloads().share(), "docs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_shared_is_refused_and_changes_nothing() {
    let house = House::new().await;
    let iso = house.beside("iso", "i.txt");
    house.shares.add(asked(&iso), ROOT).await.unwrap();
    let dir = house.dir.path().canonicalize().unwrap();
    for inner in ["share/in", "state/in", "iso/in", "else/iso"] {
        std::fs::create_dir_all(dir.join(inner)).unwrap();
    }
    std::os::unix::fs::symlink(dir.join("state"), dir.join("way")).unwrap();
    std::os::unix::fs::symlink(dir.join("share"), dir.join("again")).unwrap();
    let refused = async |path: &str| house.shares.add(asked(&dir.join(path)), ROOT).await.unwrap_err();
    for path in ["state", "state/in", "way", ""] {
        let error = refused(path).await;
        assert!(matches!(error, AddError::Forbidden { .. }), "{path}: {error}");
    }
    for path in ["share", "share/in", "iso/in", "again"] {
        let error = refused(path).await;
        assert!(matches!(error, AddError::Overlaps { .. }), "{path}: {error}");
    }
    let error = refused("else/iso").await;
    assert!(matches!(error, AddError::NameTaken { .. }), "{error}");
    for path in ["nowhere", "iso/i.txt"] {
        let error = refused(path).await;
        assert!(matches!(error, AddError::Unfit { .. }), "{path}: {error}");
    }
    assert!(matches!(house.shares.add(asked(Path::new("/")), ROOT).await, Err(AddError::Forbidden { .. })));
    assert_eq!(house.shares.rows().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_put_on_the_way_later_leads_nowhere() {
    let house = House::new().await;
    let secret = house.beside("secret", "key.txt");
    let path = house.beside("mine", "m.txt");
    house.shares.add(asked(&path), ROOT).await.unwrap();
    house.has(&["m.txt"]).await;
    std::fs::rename(&path, path.with_file_name("aside")).unwrap();
    std::os::unix::fs::symlink(&secret, &path).unwrap();
    house.shares.refresh().await.unwrap();
    let row = house.shares.rows().remove(1);
    assert!(row.unavailable.is_some(), "{row:?}");
    assert!(!house.names().await.contains(&"key.txt".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_goes_first_and_what_it_displaces_comes_back() {
    let house = House::new().await;
    let iso = house.beside("iso", "i.txt");
    let other = house.beside("other", "o.txt");
    house.shares.add(asked(&iso), ROOT).await.unwrap();
    let mut displacing = configs(house.dir.path());
    displacing.push(ShareConfig {
        name: "iso".into(),
        path: other,
        downloads: false,
        ..displacing[0].clone()
    });
    house.shares.reload(displacing).await.unwrap();
    house.has(&["o.txt"]).await;
    assert_eq!(house.shares.set_aside()[0].name, "iso");
    house.shares.reload(configs(house.dir.path())).await.unwrap();
    house.has(&["i.txt"]).await;
    assert_eq!(house.shares.set_aside(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_kept_is_not_in_force() {
    let house = House::new().await;
    let iso = house.beside("iso", "i.txt");
    std::fs::remove_dir(house.dir.path().join("state")).unwrap();
    let error = house.shares.add(asked(&iso), ROOT).await.unwrap_err();
    assert!(matches!(error, AddError::Keep(_)), "{error}");
    assert_eq!(house.shares.rows().len(), 1);
    std::fs::create_dir(house.dir.path().join("state")).unwrap();
    house.shares.add(asked(&iso), ROOT).await.unwrap();
}
