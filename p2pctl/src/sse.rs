//! Server-sent events: from pieces of a byte stream to the data of each event. Pure.

/// A line longer than this is no event of ours.
const MAX_EVENT_LEN: usize = 8 << 20;

/// Collects the pieces of a stream and gives out whole events.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
    data: Vec<u8>,
}

/// The stream is not one of server-sent events.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT_LEN} bytes")]
pub(crate) struct EventTooLong;

impl Decoder {
    /// Takes the next piece of the stream; `event` gets the data of each event that it completes.
    pub(crate) fn feed(&mut self, piece: &[u8], mut event: impl FnMut(Vec<u8>)) -> Result<(), EventTooLong> {
        for &byte in piece {
            if byte != b'\n' {
                self.pending.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.pending);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                if !self.data.is_empty() {
                    event(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        match self.pending.len() + self.data.len() > MAX_EVENT_LEN {
            true => Err(EventTooLong),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in pieces {
            decoder.feed(piece, |data| events.push(String::from_utf8(data).unwrap())).unwrap();
        }
        events
    }

    #[test]
    fn events_are_whole_wherever_the_stream_is_cut() {
        let stream = b": hello\n\ndata: {\"a\":1}\n\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\n";
        for cut in 0..stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(decode(&[left, right]), ["{\"a\":1}", "two\nlines"], "cut at {cut}");
        }
    }

    #[test]
    fn an_event_that_was_cut_off_is_not_given_out() {
        assert_eq!(decode(&[b"data: 1\n\ndata: 2\n"]), ["1"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(&vec![b'x'; MAX_EVENT_LEN + 1], |_| {}), Err(EventTooLong));
    }
}
