//! Cursors: positions in lists as texts that callers hand back unread. Pure; used by the edges.
//!
//! A cursor says only where to go on, so a forged one gets nothing that could not be asked for anyway. The check sum
//! is there to tell a caller that a cursor was cut or mixed up, instead of answering with the wrong page.

use p2p_content::{ContentHash, MAX_NAME_BYTES};
use p2p_identity::PeerId;

use super::{FindPosition, NamePosition, PeerKey, Through};

const NAMES: u8 = b'n';
const PEERS: u8 = b'p';
const FOUND: u8 = b'f';
const CONTENTS: u8 = b'c';
/// A byte that is no rank: the order is by name.
const BY_NAME: u8 = 0xff;
const CHECK_LEN: usize = 4;
/// Longest decoded cursor: a URL or a name, a hash, and some bytes around them.
const MAX_LEN: usize = 4096;

/// The text is not a cursor of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a cursor of this list; pass 'next' of the previous page as it is, or none to begin again"
)]
pub struct InvalidCursor;

/// The text for a position in a list that is ordered by name.
pub fn encode_name(position: &NamePosition) -> String {
    let mut bytes = vec![NAMES];
    write_name(&mut bytes, position);
    seal(bytes)
}

fn write_name(bytes: &mut Vec<u8>, position: &NamePosition) {
    match &position.through {
        Through::Name => bytes.push(0),
        Through::Content(None) => bytes.push(1),
        Through::Content(Some(content)) => {
            bytes.push(2);
            bytes.extend(content.as_bytes());
        }
    }
    bytes.extend(position.name.as_bytes());
}

/// The position that [`encode_name`] made a text of.
pub fn decode_name(text: &str) -> Result<NamePosition, InvalidCursor> {
    read_name(&open(text, NAMES)?)
}

fn read_name(bytes: &[u8]) -> Result<NamePosition, InvalidCursor> {
    let (kind, rest) = bytes.split_first().ok_or(InvalidCursor)?;
    let (through, name) = match kind {
        0 => (Through::Name, rest),
        1 => (Through::Content(None), rest),
        2 => {
            let (content, name) = rest.split_first_chunk::<32>().ok_or(InvalidCursor)?;
            (Through::Content(Some(ContentHash::from_bytes(*content))), name)
        }
        _ => return Err(InvalidCursor),
    };
    if name.len() > MAX_NAME_BYTES {
        return Err(InvalidCursor);
    }
    let name = String::from_utf8(name.to_vec()).map_err(|_| InvalidCursor)?;
    Ok(NamePosition { name, through })
}

/// The text for a position in what was found by a pattern.
pub fn encode_find(position: &FindPosition) -> String {
    let mut bytes = vec![FOUND, position.rank.unwrap_or(BY_NAME)];
    write_name(&mut bytes, &position.at);
    seal(bytes)
}

/// The position that [`encode_find`] made a text of. One of the first release, which found by name alone, is taken too.
pub fn decode_find(text: &str) -> Result<FindPosition, InvalidCursor> {
    if let Ok(at) = decode_name(text) {
        return Ok(FindPosition { rank: None, at });
    }
    let bytes = open(text, FOUND)?;
    let (rank, rest) = bytes.split_first().ok_or(InvalidCursor)?;
    Ok(FindPosition { rank: (*rank != BY_NAME).then_some(*rank), at: read_name(rest)? })
}

/// The text for a position in a list of contents.
pub fn encode_content(position: &ContentHash) -> String {
    seal([&[CONTENTS], &position.as_bytes()[..]].concat())
}

/// The position that [`encode_content`] made a text of.
pub fn decode_content(text: &str) -> Result<ContentHash, InvalidCursor> {
    let bytes = open(text, CONTENTS)?;
    Ok(ContentHash::from_bytes(bytes.try_into().map_err(|_| InvalidCursor)?))
}

/// The text for a position in a list of peers.
pub fn encode_peer(position: &PeerKey) -> String {
    let mut bytes = vec![PEERS];
    match position {
        PeerKey::Synced(id) => {
            bytes.push(0);
            bytes.extend(id.as_bytes());
        }
        PeerKey::Plain(url) => {
            bytes.push(1);
            bytes.extend(url.as_bytes());
        }
    }
    seal(bytes)
}

/// The position that [`encode_peer`] made a text of.
pub fn decode_peer(text: &str) -> Result<PeerKey, InvalidCursor> {
    let bytes = open(text, PEERS)?;
    match bytes.split_first().ok_or(InvalidCursor)? {
        (0, id) => Ok(PeerKey::Synced(PeerId::from_bytes(id.try_into().map_err(|_| InvalidCursor)?))),
        (1, url) => Ok(PeerKey::Plain(String::from_utf8(url.to_vec()).map_err(|_| InvalidCursor)?)),
        _ => Err(InvalidCursor),
    }
}

fn seal(mut bytes: Vec<u8>) -> String {
    let check = check(&bytes);
    bytes.extend(check);
    data_encoding::BASE64URL_NOPAD.encode(&bytes)
}

fn open(text: &str, kind: u8) -> Result<Vec<u8>, InvalidCursor> {
    if text.len() > MAX_LEN * 4 / 3 {
        return Err(InvalidCursor);
    }
    let mut bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidCursor)?;
    let body_len = bytes.len().checked_sub(CHECK_LEN).ok_or(InvalidCursor)?;
    if bytes.split_off(body_len) != check(&bytes) || bytes.first() != Some(&kind) {
        return Err(InvalidCursor);
    }
    bytes.remove(0);
    Ok(bytes)
}

fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK_LEN]);
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions() -> impl Strategy<Value = NamePosition> {
        let through = prop_oneof![
            Just(Through::Name),
            Just(Through::Content(None)),
            any::<[u8; 32]>().prop_map(|hash| Through::Content(Some(ContentHash::from_bytes(hash)))),
        ];
        (".{0,40}", through).prop_map(|(name, through)| NamePosition { name, through })
    }

    proptest! {
        #[test]
        fn positions_come_back(
            position in positions(), url in "http://[a-z]{1,20}:[0-9]{1,5}", id: [u8; 32],
            rank in prop::option::of(0..9u8)
        ) {
            prop_assert_eq!(decode_name(&encode_name(&position)), Ok(position.clone()));
            let found = FindPosition { rank, at: position };
            prop_assert_eq!(decode_find(&encode_find(&found)), Ok(found));
            let content = ContentHash::from_bytes(id);
            prop_assert_eq!(decode_content(&encode_content(&content)), Ok(content));
            for key in [PeerKey::Plain(url.clone()), PeerKey::Synced(PeerId::from_bytes(id))] {
                prop_assert_eq!(decode_peer(&encode_peer(&key)), Ok(key));
            }
        }

        #[test]
        fn a_changed_or_foreign_cursor_is_refused(position in positions(), at: prop::sample::Index, to in "[A-Za-z0-9_-]") {
            let text = encode_name(&position);
            prop_assert_eq!(decode_peer(&text), Err(InvalidCursor));
            prop_assert_eq!(decode_content(&text), Err(InvalidCursor));
            let found = encode_find(&FindPosition { rank: Some(0), at: position });
            prop_assert_eq!(decode_name(&found), Err(InvalidCursor));
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            if changed != text {
                prop_assert_eq!(decode_name(&changed), Err(InvalidCursor));
            }
            prop_assert_eq!(decode_name(&text[..at]), Err(InvalidCursor));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,100}") {
            let _ = (decode_name(&text), decode_peer(&text), decode_find(&text), decode_content(&text));
        }
    }
}
