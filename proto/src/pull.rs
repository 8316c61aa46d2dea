//! `PullResponse`, written and read without copying its data.
//!
//! The bytes on the wire are those of any gRPC program: a message is framed by five bytes (a flag, and its length), and
//! its fields follow as protobuf has them. The generated code copies the data once into a message's buffer and once out
//! of it, which costs a tenth of the throughput. Here the head is written in front of where the data is read to, and the
//! data of a message stays in the buffers in which the network delivered it.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::PULL_CHUNK_LEN;
use crate::v1::{PullRefusal, PullResponse};

/// Bytes that a [`head`] has at the most.
pub const MAX_HEAD_LEN: usize = FRAME_LEN + 1 + 10 + 1 + 5;

/// Length of gRPC's frame head: whether the message is compressed, and its length.
const FRAME_LEN: usize = 5;
/// Longest message that is taken: a chunk of data, and room for the other fields.
const MAX_LEN: usize = PULL_CHUNK_LEN + 64 * 1024;
/// The keys of the fields: number and wire type.
const ID: u64 = 1 << 3;
const DATA: u64 = 2 << 3 | LENGTH_DELIMITED;
const REFUSAL: u64 = 3 << 3 | LENGTH_DELIMITED;
const LENGTH_DELIMITED: u64 = 2;

/// What stands before `data_len` bytes of data that answer the request `id`.
pub fn head(id: u64, data_len: usize) -> Bytes {
    let mut fields = BytesMut::with_capacity(MAX_HEAD_LEN);
    // As protobuf's version 3 has it, a field of its default value is not there.
    if id != 0 {
        put_varint(&mut fields, ID);
        put_varint(&mut fields, id);
    }
    if data_len != 0 {
        put_varint(&mut fields, DATA);
        put_varint(&mut fields, data_len as u64);
    }
    let mut head = BytesMut::with_capacity(MAX_HEAD_LEN);
    head.put_u8(0);
    head.put_u32(u32::try_from(fields.len() + data_len).unwrap_or(u32::MAX));
    head.put(fields);
    head.freeze()
}

/// A refusal of the request `id`, framed.
pub fn refusal(id: u64, refusal: PullRefusal) -> Bytes {
    let message = PullResponse { id, data: Bytes::new(), refusal: Some(refusal) };
    let mut framed = BytesMut::with_capacity(FRAME_LEN + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    framed.put_slice(&message.encode_to_vec());
    framed.freeze()
}

/// A `PullResponse`, its data in the pieces in which it came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The request that it answers.
    pub id: u64,
    /// The data.
    pub data: Vec<Bytes>,
    /// Why there is none.
    pub refusal: Option<PullRefusal>,
}

/// What arrives is no `PullResponse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is compressed, and nobody asked for that.
    #[error("the answer is compressed")]
    Compressed,
    /// It is longer than any may be.
    #[error("the answer has {0} bytes")]
    TooLong(usize),
    /// It is not protobuf.
    #[error("the answer is not a message")]
    NoMessage,
}

/// Takes the stream of bytes apart into answers.
#[derive(Debug, Default)]
pub struct Reader(Rope);

impl Reader {
    /// More bytes have come.
    pub fn push(&mut self, bytes: Bytes) {
        self.0.push(bytes);
    }

    /// Whether nothing of an answer waits for the rest of it.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The next answer, if all of it has come.
    ///
    /// # Errors
    /// Where what came is none.
    pub fn take(&mut self) -> Result<Option<Answer>, Malformed> {
        let Some(frame) = self.0.peek::<FRAME_LEN>() else { return Ok(None) };
        let [flag, length @ ..] = frame;
        let len = u32::from_be_bytes(length) as usize;
        if flag != 0 {
            return Err(Malformed::Compressed);
        }
        if len > MAX_LEN {
            return Err(Malformed::TooLong(len));
        }
        if self.0.len < FRAME_LEN + len {
            return Ok(None);
        }
        self.0.take(FRAME_LEN);
        let mut message = Rope::default();
        self.0.take(len).into_iter().for_each(|bytes| message.push(bytes));
        read(message).map(Some)
    }
}

fn read(mut message: Rope) -> Result<Answer, Malformed> {
    let mut answer = Answer::default();
    while message.len > 0 {
        let key = message.varint()?;
        match key {
            ID => answer.id = message.varint()?,
            // Of a field that comes twice the last one counts, as protobuf has it.
            DATA => answer.data = message.field()?,
            REFUSAL => {
                let bytes: Vec<u8> = message.field()?.concat();
                let refusal = PullRefusal::decode(bytes.as_slice()).map_err(|_| Malformed::NoMessage)?;
                answer.refusal = Some(refusal);
            }
            // Fields of a newer protocol are left out.
            _ => match key & 7 {
                0 => drop(message.varint()?),
                1 => drop(message.exactly(8)?),
                LENGTH_DELIMITED => drop(message.field()?),
                5 => drop(message.exactly(4)?),
                _ => return Err(Malformed::NoMessage),
            },
        }
    }
    Ok(answer)
}

fn put_varint(buffer: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

/// Bytes in several buffers.
#[derive(Debug, Default)]
struct Rope {
    buffers: VecDeque<Bytes>,
    len: usize,
}

impl Rope {
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.buffers.push_back(bytes);
        }
    }

    /// The first bytes, which stay.
    fn peek<const LEN: usize>(&self) -> Option<[u8; LEN]> {
        if self.len < LEN {
            return None;
        }
        let mut first = [0; LEN];
        let bytes = self.buffers.iter().flat_map(|buffer| buffer.iter());
        first.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        Some(first)
    }

    /// The first `len` bytes, or all.
    fn take(&mut self, mut len: usize) -> Vec<Bytes> {
        let mut taken = Vec::with_capacity(2);
        while len > 0
            && let Some(first) = self.buffers.front_mut()
        {
            let bytes = if first.len() <= len {
                self.buffers.pop_front().unwrap_or_default()
            } else {
                first.split_to(len)
            };
            len -= bytes.len();
            self.len -= bytes.len();
            taken.push(bytes);
        }
        taken
    }

    fn exactly(&mut self, len: usize) -> Result<Vec<Bytes>, Malformed> {
        if self.len < len { Err(Malformed::NoMessage) } else { Ok(self.take(len)) }
    }

    /// A field with its length before it.
    fn field(&mut self) -> Result<Vec<Bytes>, Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed::NoMessage)?;
        self.exactly(len)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte().ok_or(Malformed::NoMessage)?;
            // The tenth byte has room for one bit of 64.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::NoMessage)
    }

    fn byte(&mut self) -> Option<u8> {
        let first = self.buffers.front_mut()?;
        let byte = first.get_u8();
        if first.is_empty() {
            self.buffers.pop_front();
        }
        self.len -= 1;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1::pull_refusal::Reason;

    fn framed(message: &PullResponse) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        let mut framed = vec![0];
        framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        framed.extend(bytes);
        framed
    }

    /// All that a reader makes of these bytes, which come in buffers of these lengths, again and again.
    fn read_in(bytes: &[u8], lengths: &[usize]) -> Result<Vec<Answer>, Malformed> {
        let mut reader = Reader::default();
        let (mut answers, mut rest) = (Vec::new(), bytes);
        let mut lengths = lengths.iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*lengths.next().unwrap()).clamp(1, rest.len()));
            reader.push(Bytes::copy_from_slice(now));
            rest = later;
            while let Some(answer) = reader.take()? {
                answers.push(answer);
            }
        }
        assert!(reader.is_empty());
        Ok(answers)
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_generated_code_writes(id: u64, data: Vec<u8>) {
            let mut ours = head(id, data.len()).to_vec();
            assert!(ours.len() <= MAX_HEAD_LEN);
            ours.extend(&data);
            prop_assert_eq!(ours, framed(&PullResponse { id, data: data.into(), refusal: None }));
        }

        #[test]
        fn what_generated_code_writes_is_read(
            messages in prop::collection::vec((any::<u64>(), any::<Vec<u8>>(), any::<bool>()), 1..5),
            lengths in prop::collection::vec(1_usize..40, 1..8),
        ) {
            let refused = PullRefusal { reason: Reason::Changed.into(), message: "it changed".to_owned() };
            let messages: Vec<_> = messages.into_iter().map(|(id, data, refuse)| PullResponse {
                id,
                data: if refuse { Bytes::new() } else { data.into() },
                refusal: refuse.then(|| refused.clone()),
            }).collect();
            let bytes: Vec<u8> = messages.iter().flat_map(framed).collect();
            let answers = read_in(&bytes, &lengths).unwrap();
            let joined = answers.into_iter().map(|answer| PullResponse {
                id: answer.id,
                data: answer.data.concat().into(),
                refusal: answer.refusal,
            });
            prop_assert_eq!(joined.collect::<Vec<_>>(), messages);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, length in 1_usize..9) {
            let mut framed = vec![0, 0, 0];
            framed.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
            framed.extend(bytes);
            let mut reader = Reader::default();
            for chunk in framed.chunks(length) {
                reader.push(Bytes::copy_from_slice(chunk));
                if reader.take().is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_refusal_is_as_generated_code_writes_it() {
        let refused = PullRefusal { reason: Reason::NotYet.into(), message: "not yet".to_owned() };
        let message = PullResponse { id: 7, data: Bytes::new(), refusal: Some(refused.clone()) };
        assert_eq!(refusal(7, refused), framed(&message));
    }

    #[test]
    fn data_stays_where_it_came() {
        let mut reader = Reader::default();
        reader.push(head(3, 8));
        let (first, second) = (Bytes::from_static(b"dato"), Bytes::from_static(b"s ya"));
        reader.push(first.clone());
        assert_eq!(reader.take(), Ok(None));
        reader.push(second.clone());
        let answer = reader.take().unwrap().unwrap();
        assert_eq!(answer.data, [first.clone(), second.clone()]);
        assert!(answer.data[0].as_ptr() == first.as_ptr() && answer.data[1].as_ptr() == second.as_ptr());
    }

    #[test]
    fn fields_of_a_newer_protocol_are_left_out() {
        let mut message = vec![0x08, 5];
        message.extend([0x20, 0x96, 0x01, 0x29, 1, 2, 3, 4, 5, 6, 7, 8, 0x32, 2, 9, 9, 0x3d, 1, 2, 3, 4]);
        message.extend([0x12, 1, b'x']);
        let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        framed.extend(message);
        let answers = read_in(&framed, &[3]).unwrap();
        assert_eq!(answers, [Answer { id: 5, data: vec![Bytes::from_static(b"x")], refusal: None }]);
    }

    #[test]
    fn what_is_no_answer_is_said() {
        assert_eq!(read_in(&[1, 0, 0, 0, 0], &[9]), Err(Malformed::Compressed));
        assert_eq!(read_in(&[0, 0xff, 0, 0, 0], &[9]), Err(Malformed::TooLong(0xff00_0000)));
        assert_eq!(read_in(&[0, 0, 0, 0, 2, 0x12, 9], &[9]), Err(Malformed::NoMessage));
        let endless: Vec<u8> = [0, 0, 0, 0, 11, 0x08].into_iter().chain([0xff; 10]).collect();
        assert_eq!(read_in(&endless, &[99]), Err(Malformed::NoMessage));
    }
}
