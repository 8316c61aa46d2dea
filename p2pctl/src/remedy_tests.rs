use super::*;

fn service() -> Daemon {
    Daemon { user: "p2pd".to_owned(), unit: Some("p2pd.service".to_owned()) }
}

fn by_hand() -> Daemon {
    Daemon { user: "ana".to_owned(), unit: None }
}

fn open() -> Seen {
    Seen { is_directory: true, is_open: true, ..Seen::default() }
}

fn told(path: &str, downloads: bool, flaw: Flaw, daemon: &Daemon, seen: &Seen) -> Remedy {
    remedy(Case { path: Path::new(path), name: "my iso", downloads, flaw }, daemon, seen).unwrap()
}

#[test]
fn a_home_is_shown_through_the_sandbox_and_opened() {
    let seen = Seen { is_open: false, is_own: true, ..open() };
    for flaw in [Flaw::NotThere, Flaw::Unreadable] {
        let told = told("/home/ana/iso", false, flaw, &service(), &seen);
        assert!(told.reason.contains("the sandbox of p2pd.service hides it"), "{told:?}");
        assert_eq!(
            told.commands,
            [
                "sudo mkdir -p /etc/systemd/system/p2pd.service.d",
                "printf '%s\\n' '[Service]' ProtectHome=tmpfs BindReadOnlyPaths=-/home/ana/iso | \
                 sudo tee /etc/systemd/system/p2pd.service.d/share-my-iso+e3acadf6.conf",
                "setfacl -R -m u:p2pd:rX -m d:u:p2pd:rX /home/ana/iso",
                "sudo systemctl daemon-reload",
                "sudo systemctl restart p2pd.service",
            ]
        );
    }
}

#[test]
fn what_is_open_needs_no_access_list() {
    let told = told("/tmp/iso", false, Flaw::NotThere, &service(), &open());
    assert_eq!(told.commands.len(), 4, "{told:?}");
    assert!(told.commands[1].contains("BindReadOnlyPaths=-/tmp/iso |"), "{told:?}");
    assert!(!told.commands[1].contains("ProtectHome"), "{told:?}");
}

#[test]
fn downloads_are_written_through_the_sandbox() {
    let told = told("/data/in", true, Flaw::ReadOnly, &service(), &open());
    assert!(told.commands[1].contains("ReadWritePaths=-/data/in |"), "{told:?}");
    assert!(!told.commands.iter().any(|command| command.contains("setfacl")), "{told:?}");
    let hidden = super::remedy(
        Case { path: Path::new("/home/in"), name: "in", downloads: true, flaw: Flaw::NotThere },
        &service(),
        &open(),
    )
    .unwrap();
    assert!(hidden.commands[1].contains("BindPaths=-/home/in"), "{hidden:?}");
    assert!(hidden.commands[2].contains("u:p2pd:rwX"), "{hidden:?}");
}

#[test]
fn modes_alone_need_no_restart_and_the_way_is_opened_too() {
    let seen = Seen { is_open: false, closed: vec!["/srv/private".into()], ..open() };
    let told = told("/srv/private/iso", false, Flaw::Unreadable, &service(), &seen);
    assert_eq!(
        told.commands,
        [
            "sudo setfacl -m u:p2pd:x /srv/private",
            "sudo setfacl -R -m u:p2pd:rX -m d:u:p2pd:rX /srv/private/iso"
        ]
    );
    assert!(told.reason.contains("the user p2pd read it"), "{told:?}");
    let seen = Seen { is_root: true, ..open() };
    let told = remedy(
        Case { path: Path::new("/data/in"), name: "in", downloads: true, flaw: Flaw::NotWritable },
        &by_hand(),
        &seen,
    );
    assert_eq!(told.unwrap().commands, ["setfacl -R -m u:ana:rwX -m d:u:ana:rwX /data/in"]);
}

#[test]
fn what_is_not_there_has_no_remedy() {
    let case = Case { path: Path::new("/no/such"), name: "x", downloads: false, flaw: Flaw::NotThere };
    assert_eq!(remedy(case, &service(), &Seen::at(case.path)), None);
    let told = told("/data", false, Flaw::NotThere, &by_hand(), &open());
    assert!(told.commands.is_empty() && told.reason.contains("another view"), "{told:?}");
}

#[test]
fn odd_paths_survive_the_unit_file_and_the_shell() {
    assert_eq!(unit_word("/data/50%:x", true), "/data/50%%\\:x");
    assert_eq!(unit_word("/data/50%:x", false), "/data/50%%:x");
    let told = told("/tmp/it's here", false, Flaw::NotThere, &service(), &open());
    assert!(told.commands[1].contains(r#"'BindReadOnlyPaths="-/tmp/it\'\''s here"'"#), "{told:?}");
}

#[test]
fn names_that_look_alike_have_drop_ins_of_their_own() {
    assert_eq!(file_word("a-b.C_1"), "a-b.C_1");
    let (space, slash) = (file_word("a b"), file_word("a/b"));
    assert!(space.starts_with("a-b+") && space.len() == "a-b+".len() + 8, "{space}");
    assert!(space != slash && slash != file_word("a-b"), "{slash}");
}

#[test]
fn a_path_that_others_may_bend_gets_no_commands() {
    for flaw in [Flaw::NotThere, Flaw::Unreadable, Flaw::ReadOnly, Flaw::NotWritable] {
        let seen = Seen { leads_to: Some("/etc".into()), is_root: true, ..open() };
        let linked = told("/data/ana/way", true, flaw, &service(), &seen);
        assert!(linked.commands.is_empty() && linked.reason.contains("which is /etc"), "{linked:?}");
        for path in ["/tmp/a\nExecStartPre=+/bin/sh", "/tmp/\u{1b}[2J", "/tmp/\u{202e}x"] {
            let odd = told(path, true, flaw, &service(), &open());
            assert!(odd.commands.is_empty() && odd.reason.contains("rename it"), "{odd:?}");
        }
    }
}

#[test]
fn only_p2pds_own_unit_of_the_system_counts() {
    let unit = |groups| system_unit(groups).unwrap_or_default();
    assert_eq!(unit("0::/system.slice/p2pd.service\n"), "p2pd.service");
    assert_eq!(unit("3:pids:/x\n1:name=systemd:/system.slice/p2pd.service\n"), "p2pd.service");
    assert_eq!(unit("0::/system.slice/ssh.service\n"), "");
    assert_eq!(unit("0::/user.slice/user-1000.slice/user@1000.service/app.slice/p2pd.service\n"), "");
    assert_eq!(user_name("root:x:0:0::/root:/bin/sh\np2pd:x:991:991::/:/bin/false\n", 991).unwrap(), "p2pd");
}

#[test]
fn a_directory_is_seen_with_those_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let inner = real.join("inner");
    fs::create_dir(&inner).unwrap();
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();
    let seen = Seen::at(&inner);
    assert!(seen.is_directory && seen.is_own && seen.is_open, "{seen:?}");
    assert!(seen.closed.contains(&real), "{seen:?}");
    assert_eq!(seen.leads_to, None);
    std::os::unix::fs::symlink("inner", real.join("link")).unwrap();
    assert_eq!(Seen::at(&real.join("link")).leads_to, Some(inner.clone()));
    std::os::unix::fs::symlink(".", real.join("way")).unwrap();
    assert_eq!(Seen::at(&real.join("way/inner")).leads_to, Some(inner));
}
