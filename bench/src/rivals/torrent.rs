//! Torrent files (BEP 3), for the programs that need one and cannot make it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// Bytes of a piece: as this project's, and usual for files of this size.
const PIECE_LEN: usize = 1 << 20;

/// Writes the torrent file of one file that its receivers shall call `name`.
///
/// # Errors
/// Where the file cannot be read or the torrent not be written.
pub(super) fn write(torrent: &Path, file: &Path, name: &str, announce: Option<&str>) -> Result<()> {
    let mut reader = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let bytes =
        encode(&mut reader, name, announce).with_context(|| format!("cannot read {}", file.display()))?;
    fs::write(torrent, bytes).with_context(|| format!("cannot write {}", torrent.display()))
}

fn encode(reader: &mut impl Read, name: &str, announce: Option<&str>) -> std::io::Result<Vec<u8>> {
    let (mut pieces, mut len, mut piece) = (Vec::new(), 0, Vec::with_capacity(PIECE_LEN));
    loop {
        piece.clear();
        reader.by_ref().take(PIECE_LEN as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        len += piece.len();
        pieces.extend_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &piece).as_ref());
    }
    // Keys go in the order of their bytes.
    let mut out = b"d".to_vec();
    if let Some(announce) = announce {
        text(&mut out, b"announce");
        text(&mut out, announce.as_bytes());
    }
    text(&mut out, b"info");
    out.push(b'd');
    text(&mut out, b"length");
    out.extend_from_slice(format!("i{len}e").as_bytes());
    text(&mut out, b"name");
    text(&mut out, name.as_bytes());
    text(&mut out, b"piece length");
    out.extend_from_slice(format!("i{PIECE_LEN}e").as_bytes());
    text(&mut out, b"pieces");
    text(&mut out, &pieces);
    out.extend_from_slice(b"ee");
    Ok(out)
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bencoded() {
        let bytes = encode(&mut &b"abc"[..], "a.bin", Some("http://x/")).unwrap();
        let sha1 = b"\xa9\x99\x3e\x36\x47\x06\x81\x6a\xba\x3e\x25\x71\x78\x50\xc2\x6c\x9c\xd0\xd8\x9d";
        let mut expected =
            b"d8:announce9:http://x/4:infod6:lengthi3e4:name5:a.bin12:piece lengthi1048576e6:pieces20:"
                .to_vec();
        expected.extend_from_slice(sha1);
        expected.extend_from_slice(b"ee");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_piece_has_its_hash() {
        let len = 2 * PIECE_LEN + 1;
        let bytes = encode(&mut &vec![0; len][..], "a", None).unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("6:pieces60:"));
        assert!(String::from_utf8_lossy(&bytes).starts_with(&format!("d4:infod6:lengthi{len}e4:name1:a")));
    }
}
