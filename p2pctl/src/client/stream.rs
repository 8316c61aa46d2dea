//! Answers that are read as they come: bytes, and server-sent events.

use std::marker::PhantomData;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{Answer, Client, decode, not_understood};
use crate::failure::Failure;
use crate::sse;

/// Bytes of an answer, as they come.
pub(crate) struct ByteStream<'a> {
    client: &'a Client,
    body: Incoming,
}

impl<'a> ByteStream<'a> {
    pub(super) fn new(client: &'a Client, body: Incoming) -> ByteStream<'a> {
        ByteStream { client, body }
    }

    /// The next bytes; none at the end of a complete answer.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(_)) => return Err(self.client.broken_off()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// Server-sent events, as they come.
pub(crate) struct Events<'a, T> {
    stream: ByteStream<'a>,
    decoder: sse::Decoder,
    ready: std::vec::IntoIter<Vec<u8>>,
    of: PhantomData<T>,
}

impl<'a, T: DeserializeOwned> Events<'a, T> {
    pub(super) fn new(stream: ByteStream<'a>) -> Events<'a, T> {
        Events { stream, decoder: sse::Decoder::default(), ready: Vec::new().into_iter(), of: PhantomData }
    }

    /// The next event; none once the daemon has ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Answer<T>>, Failure> {
        loop {
            if let Some(data) = self.ready.next() {
                return decode(data.into()).map(Some);
            }
            let Some(piece) = self.stream.next().await? else { return Ok(None) };
            let mut ready = Vec::new();
            self.decoder
                .feed(&piece, |data| ready.push(data))
                .map_err(|err| not_understood(&err.to_string()))?;
            self.ready = ready.into_iter();
        }
    }
}
