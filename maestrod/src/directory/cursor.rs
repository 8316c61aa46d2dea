//! Cursors: positions in lists as texts that callers hand back unread. Pure; used by the edges.
//!
//! A cursor says only where to go on, so a forged one gets nothing that could not be asked for anyway. The check sum
//! is there to tell a caller that a cursor was cut or mixed up, instead of answering with the wrong page.

use p2p_content::{ContentHash, MAX_NAME_BYTES};
use p2p_identity::PeerId;

use super::{BatchPosition, BatchSeen, FindPosition, NamePosition, PeerKey, RankPosition, Through};

const NAMES: u8 = b'n';
const PEERS: u8 = b'p';
const FOUND: u8 = b'f';
const BATCHES: u8 = b'b';
const CONTENTS: u8 = b'c';
/// A byte that is no rank: the order is by name. Earlier releases wrote it for parts that many names have.
const BY_NAME: u8 = 0xff;
const CHECK_LEN: usize = 4;
/// Longest decoded cursor: two places of a store with a share and a name each, another name, a hash, and some bytes around
/// them.
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
    match position {
        FindPosition::Rank(position) => {
            let mut bytes = vec![FOUND];
            write_rank(&mut bytes, position);
            seal(bytes)
        }
        FindPosition::Name(position) => encode_name(position),
        FindPosition::Batches(BatchPosition { opened, after, seen }) => {
            let mut bytes = vec![BATCHES, u8::from(*opened)];
            write_place(&mut bytes, after);
            if let Some(BatchSeen { through, last }) = seen {
                write_place(&mut bytes, through);
                write_rank(&mut bytes, last);
            }
            seal(bytes)
        }
    }
}

fn write_rank(bytes: &mut Vec<u8>, position: &RankPosition) {
    bytes.push(position.rank);
    write_name(bytes, &position.at);
}

fn write_place(bytes: &mut Vec<u8>, place: &[u8]) {
    // One that is longer than any store's makes a cursor that is too long as well.
    bytes.extend(u16::try_from(place.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(place);
}

/// The position that [`encode_find`] made a text of. One of an earlier release, which found by name alone, is taken too.
pub fn decode_find(text: &str) -> Result<FindPosition, InvalidCursor> {
    if let Ok(at) = decode_name(text) {
        return Ok(FindPosition::Name(at));
    }
    if let Ok(bytes) = open(text, BATCHES) {
        return read_batches(&bytes).map(FindPosition::Batches);
    }
    let RankPosition { rank, at } = read_rank(&open(text, FOUND)?)?;
    Ok(match rank {
        BY_NAME => FindPosition::Name(at),
        rank => FindPosition::Rank(RankPosition { rank, at }),
    })
}

fn read_rank(bytes: &[u8]) -> Result<RankPosition, InvalidCursor> {
    let (rank, name) = bytes.split_first().ok_or(InvalidCursor)?;
    Ok(RankPosition { rank: *rank, at: read_name(name)? })
}

fn read_batches(bytes: &[u8]) -> Result<BatchPosition, InvalidCursor> {
    let (opened, rest) = match bytes.split_first() {
        Some((opened @ (0 | 1), rest)) => (*opened == 1, rest),
        _ => return Err(InvalidCursor),
    };
    let (after, rest) = read_place(rest)?;
    if rest.is_empty() {
        return Ok(BatchPosition { opened, after, seen: None });
    }
    let (through, rest) = read_place(rest)?;
    Ok(BatchPosition { opened, after, seen: Some(BatchSeen { through, last: read_rank(rest)? }) })
}

fn read_place(bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), InvalidCursor> {
    let (len, rest) = bytes.split_first_chunk::<2>().ok_or(InvalidCursor)?;
    let (place, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or(InvalidCursor)?;
    Ok((place.to_vec(), rest))
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

    fn found() -> impl Strategy<Value = FindPosition> {
        let ranked = || (0..9u8, positions()).prop_map(|(rank, at)| RankPosition { rank, at });
        let place = || prop::collection::vec(any::<u8>(), 0..40);
        let seen = (place(), ranked()).prop_map(|(through, last)| BatchSeen { through, last });
        let batches = (any::<bool>(), place(), prop::option::of(seen));
        prop_oneof![
            positions().prop_map(FindPosition::Name),
            ranked().prop_map(FindPosition::Rank),
            batches.prop_map(|(opened, after, seen)| {
                FindPosition::Batches(BatchPosition { opened, after, seen })
            }),
        ]
    }

    /// What the release before wrote for a part that many names have.
    #[test]
    fn a_cursor_by_name_of_an_earlier_release_goes_on_by_name() {
        let at = NamePosition { name: "a/b".to_owned(), through: Through::Content(None) };
        let mut bytes = vec![FOUND, BY_NAME];
        write_name(&mut bytes, &at);
        assert_eq!(decode_find(&seal(bytes)), Ok(FindPosition::Name(at)));
    }

    #[test]
    fn the_longest_names_fit_a_cursor() {
        let name = "x".repeat(MAX_NAME_BYTES);
        let place = vec![0xff; 8 + 1 + 255 + MAX_NAME_BYTES];
        let at = NamePosition { name, through: Through::Content(Some(ContentHash::from_bytes([1; 32]))) };
        let last = RankPosition { rank: 5, at };
        let seen = Some(BatchSeen { through: place.clone(), last });
        let position = FindPosition::Batches(BatchPosition { opened: true, after: place, seen });
        assert_eq!(decode_find(&encode_find(&position)), Ok(position));
    }

    proptest! {
        #[test]
        fn positions_come_back(
            position in positions(), url in "http://[a-z]{1,20}:[0-9]{1,5}", id: [u8; 32], found in found()
        ) {
            prop_assert_eq!(decode_name(&encode_name(&position)), Ok(position));
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
            let found = encode_find(&FindPosition::Rank(RankPosition { rank: 0, at: position }));
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
        fn a_forged_cursor_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..60), kind in "[nfb]") {
            let forged = seal([kind.as_bytes(), &body].concat());
            if let Ok(position) = decode_find(&forged) {
                prop_assert_eq!(decode_find(&encode_find(&position)), Ok(position));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,100}") {
            let _ = (decode_name(&text), decode_peer(&text), decode_find(&text), decode_content(&text));
        }
    }
}
