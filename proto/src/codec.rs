//! How messages are encoded: as ever, with less memory for a stream that is mostly silent.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes that a stream takes at once for each direction, and by which it takes more. tonic's own 8 KiB twice for each
/// of 10,000 peers are a fifth of what a maestro needs for them.
const BUFFER_LEN: usize = 1024;
/// Bytes of small messages that leave together, at most: tonic's own setting.
const TOGETHER_LEN: usize = 32 * 1024;

/// prost's encoding, with small buffers.
#[derive(Debug, Clone, Copy)]
pub struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER_LEN, TOGETHER_LEN))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_LEN, TOGETHER_LEN))
    }
}
