//! `friends`: the peers that this peer's user trusts.

use hyper::Method;
use p2p_proto::control::{AddFriend, Friend, FriendList};

use super::escaped;
use crate::cli::{self, FriendsVerb};
use crate::client::{CALL, Client};
use crate::failure::Failure;
use crate::output::{Column, Output, Table, age, now_ms, short_id};

/// Runs `friends`.
pub(super) async fn run(client: &Client, out: &Output, args: cli::Friends) -> Result<(), Failure> {
    match args.verb.unwrap_or(FriendsVerb::List) {
        FriendsVerb::List => list(client, out).await,
        FriendsVerb::Add { peer, id, name } => add(client, out, AddFriend { peer, peer_id: id, name }).await,
        FriendsVerb::Remove { peer } => {
            client.delete(&format!("/v1/friends/{}", escaped(&peer))).await?;
            out.note(&format!("{peer} is no friend of this peer any more."));
            Ok(())
        }
    }
}

async fn list(client: &Client, out: &Output) -> Result<(), Failure> {
    let answer = client.get::<FriendList>("/v1/friends").await?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let friends = answer.value.friends;
    if friends.is_empty() {
        out.note("This peer has no friends yet: add one with `p2pctl friends add HOST:PORT`.");
        return Ok(());
    }
    let now = now_ms();
    let mut table = Table::new(&[
        Column::left("NAME"),
        Column::left("ID"),
        Column::left("ADDED"),
        Column::flow("ADDRESS"),
    ]);
    for friend in &friends {
        table.row([
            friend.name.as_str().into(),
            short_id(Some(&friend.peer_id)).into(),
            age(friend.added_ms, now).into(),
            friend.addresses.join(" ").into(),
        ]);
    }
    out.table(&table)
}

async fn add(client: &Client, out: &Output, request: AddFriend) -> Result<(), Failure> {
    let pinned = request.peer_id.is_none();
    let answer = client.json::<Friend>(Method::POST, "/v1/friends", Some(&request), CALL).await?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let friend = answer.value;
    out.line(&format!("{} is a friend of this peer now.", friend.name))?;
    out.line(&format!("  peer ID  {}", friend.peer_id))?;
    if pinned {
        out.note("Only this peer ID is trusted from now on. Compare it with what `p2pctl status` shows over there.");
    }
    Ok(())
}
