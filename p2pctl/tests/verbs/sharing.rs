//! `share`: adding and removing directories, and what is said where the daemon cannot use one.

use serde_json::{Value, json};

use crate::command::run;
use crate::daemon::{Daemon, Reply};

fn row(name: &str, downloads: bool) -> Value {
    json!({"name": name, "path": format!("/data/{name}"), "visible": "network", "downloads": downloads, "files": 0,
           "bytes": 0, "unavailable": null, "skipped": [], "added": true})
}

fn body(daemon: &Daemon) -> Value {
    serde_json::from_slice(&daemon.seen().last().unwrap().body).unwrap()
}

#[test]
fn a_share_is_added_and_removed() {
    let daemon = Daemon::start();
    daemon.on("POST /v1/shares", Reply::Body { status: 201, body: row("iso", false).to_string().into() });
    run(&daemon, &["share", "add", "/data/iso"])
        .exits(0)
        .prints("/data/iso is shared with the network as iso.\n")
        .says("p2pctl shares");
    let asked = json!({"path": "/data/iso", "visible": "network", "downloads": false});
    assert_eq!(body(&daemon), asked);
    daemon.on("POST /v1/shares", Reply::Body { status: 201, body: row("in", true).to_string().into() });
    run(&daemon, &["share", "add", "/data/in"]).exits(0);
    let ended = run(
        &daemon,
        &["share", "add", "/data/x", "--name", "in", "--visible", "friends", "--downloads", "--json"],
    )
    .exits(0)
    .says_nothing();
    assert_eq!(ended.values(), [row("in", true)]);
    let asked = json!({"path": "/data/x", "name": "in", "visible": "friends", "downloads": true});
    assert_eq!(body(&daemon), asked);
    daemon.on("DELETE /v1/shares/my%20iso", Reply::Body { status: 204, body: Default::default() });
    run(&daemon, &["share", "remove", "my iso"]).exits(0).prints("").says("Its files stay");
    daemon.json("GET /v1/shares", json!({"shares": [row("iso", false)]}));
    let listed = run(&daemon, &["share", "list"]).exits(0);
    run(&daemon, &["shares"]).exits(0).prints(&listed.stdout);
}

#[test]
fn what_the_daemon_cannot_use_and_the_user_can_is_explained_with_commands() {
    let daemon = Daemon::start();
    let path = daemon.dir().join("seen here");
    std::fs::create_dir(&path).unwrap();
    let path = path.to_str().unwrap();
    daemon.problem("POST /v1/shares", 403, "share-not-writable", "it cannot be shared");
    let ended =
        run(&daemon, &["share", "add", path, "--downloads"]).exits(5).says("error: it cannot be shared");
    assert!(ended.stderr.contains("setfacl -R -m u:p2pd:rwX"), "{ended:#?}");
    assert!(ended.stderr.contains(&format!("    p2pctl share add '{path}' --downloads\n")), "{ended:#?}");
    let ended = run(&daemon, &["share", "add", path, "--name", "x", "--json"]).exits(5);
    let told: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(told["code"], "share-not-writable");
    assert_eq!(
        told["commands"].as_array().unwrap().last().unwrap(),
        &format!("p2pctl share add '{path}' --name x")
    );
}

#[test]
fn a_path_that_leads_elsewhere_gets_a_reason_and_no_commands() {
    let daemon = Daemon::start();
    let real = daemon.dir().canonicalize().unwrap().join("real");
    std::fs::create_dir(&real).unwrap();
    let link = daemon.dir().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let lines = daemon.dir().join("a\nb");
    std::fs::create_dir(&lines).unwrap();
    daemon.problem("POST /v1/shares", 403, "share-unreadable", "it cannot be shared");
    for (path, why) in [(&link, real.to_str().unwrap()), (&lines, "rename it")] {
        let ended = run(&daemon, &["share", "add", path.to_str().unwrap()]).exits(5).says(why);
        assert!(!ended.stderr.contains("setfacl") && !ended.stderr.contains("sudo"), "{ended:#?}");
    }
}

#[test]
fn what_is_not_there_is_just_not_there() {
    let daemon = Daemon::start();
    daemon.problem("POST /v1/shares", 404, "share-not-there", "it cannot be shared");
    run(&daemon, &["share", "add", "/no/such"]).exits(3).says("There is no directory /no/such");
    daemon.problem("DELETE /v1/shares/x", 404, "share-unknown", "there is no share x");
    run(&daemon, &["share", "remove", "x"]).exits(3).says("there is no share x");
    daemon.problem("DELETE /v1/shares/shared", 409, "share-configured", "it is in the configuration file");
    run(&daemon, &["share", "remove", "shared"]).exits(1).says("configuration file");
}
