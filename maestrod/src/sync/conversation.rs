//! What a maestro does with what a peer says after its Hello: it applies changes, and sees to it that in the end both hold
//! the same.
//!
//! It knows the directory and no stream: whoever has the messages hands them in, one at a time, and sends the answers.
//! Called by `sync`, and by the test that lets everything happen in every order.

use p2p_content::bucket_of;
use p2p_identity::PeerId;
use p2p_proto::v1::{
    Ack, BucketDigests, BucketFiles, CatalogDelta, CompareBuckets, Hello, TellBuckets, sync_request,
    sync_response,
};

use super::repair;
pub use super::session::Resume;
use super::session::{self, Session, Violation};
use crate::directory::{self, Change, Complete, Directory, DirectoryError, FileRecord, Held};

/// Whole catalogs in a row that may end with another digest, before the peer is sent away to begin anew.
const MAX_RESYNCS: u32 = 3;
/// Differences that one stream may have mended part by part; from then on the whole catalog is asked for.
const MAX_REPAIRS: u32 = 100;

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The peer broke the protocol.
    #[error("{0}")]
    Violation(String),
    /// The directory did not take it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        Failure::Violation(violation.to_string())
    }
}

/// What came of a message.
#[derive(Debug, Default)]
pub struct Taken {
    /// What the peer is told, in this order.
    pub answers: Vec<sync_response::Message>,
    /// Changes of the peer that were applied; `None`: it was no delta.
    pub changes: Option<u64>,
    /// The whole catalog was asked for, since it differs.
    pub resync: bool,
    /// A difference is mended, by so many files.
    pub repaired: Option<u64>,
    /// Whole catalogs came again and again and still differ: the stream ends when the answers are sent.
    pub is_hopeless: bool,
}

/// One peer's stream after its Hello.
#[derive(Debug)]
pub struct Conversation {
    peer: PeerId,
    key: directory::Session,
    session: Session,
    agreement: Agreement,
    /// Files that the peer is asked for at once, and changes that are then applied at once.
    files_asked: u64,
}

/// Whether both sides hold the same, and what was done about it.
#[derive(Debug, Default)]
struct Agreement {
    /// The peer can tell its catalog bucket by bucket.
    compares_buckets: bool,
    /// A full catalog is being sent.
    whole: bool,
    /// What the peer was asked for and has not begun to answer. What comes meanwhile it sent before it heard.
    asked: Option<Asked>,
    /// They have differed since they last agreed.
    differed: bool,
    /// Files that the peer has, as it said last.
    files: u64,
    /// Differences that were looked for.
    repairs: u32,
    /// Full catalogs in a row that still differed.
    failures: u32,
}

#[derive(Debug)]
enum Asked {
    Whole,
    Digests {
        bits: u32,
    },
    Files {
        bits: u32,
        /// The last one is with the peer.
        questions: Vec<Vec<u32>>,
        /// Files that were set right so far.
        repaired: u64,
    },
}

impl Agreement {
    /// What the peer is to be asked for after a delta.
    fn after(&mut self, reset: bool, complete: Option<Complete>, agrees: bool) -> Option<&Asked> {
        if reset {
            (self.whole, self.asked) = (true, None);
        }
        let complete = complete?;
        self.files = complete.files;
        if self.asked.is_some() {
            return None;
        }
        let whole = std::mem::take(&mut self.whole);
        if agrees {
            (self.differed, self.failures) = (false, 0);
            return None;
        }
        let is_first = !std::mem::replace(&mut self.differed, true);
        if self.compares_buckets && !whole && is_first && self.repairs < MAX_REPAIRS {
            self.repairs += 1;
            return Some(self.asked.insert(Asked::Digests { bits: repair::bits_for(complete.files) }));
        }
        self.failures += u32::from(whole);
        Some(self.asked.insert(Asked::Whole))
    }
}

impl Conversation {
    /// Checks a Hello, before it changes anything.
    ///
    /// # Errors
    ///
    /// [`Failure::Violation`].
    pub fn check(hello: &Hello) -> Result<(), Failure> {
        Ok(Session::check_hello(hello.epoch)?)
    }

    /// The stream of a peer that said this Hello, and of whom this is held.
    ///
    /// # Errors
    ///
    /// [`Failure::Violation`].
    pub fn begin(peer: PeerId, hello: &Hello, held: Held) -> Result<(Conversation, Resume), Failure> {
        let (session, resume) = Session::begin(hello.epoch, hello.last_sequence, held)?;
        let agreement = Agreement { compares_buckets: hello.compares_buckets, ..Agreement::default() };
        let (key, files_asked) = (held.session, repair::FILES_ASKED);
        Ok((Conversation { peer, key, session, agreement, files_asked }, resume))
    }

    /// The same, asking for about so many files at once: for tests, which have few.
    pub fn asking_for(self, files_asked: u64) -> Conversation {
        Conversation { files_asked, ..self }
    }

    /// Takes a message. A Hello, a Goodbye and what is not known come to nothing.
    ///
    /// # Errors
    ///
    /// The stream ends with either.
    pub async fn take(
        &mut self,
        directory: &dyn Directory,
        message: sync_request::Message,
        now_ms: i64,
    ) -> Result<Taken, Failure> {
        match message {
            sync_request::Message::Delta(delta) => self.take_delta(directory, delta, now_ms).await,
            sync_request::Message::Digests(said) => self.take_digests(directory, &said, now_ms).await,
            sync_request::Message::Files(said) => self.take_files(directory, said, now_ms).await,
            sync_request::Message::Hello(_) | sync_request::Message::Goodbye(_) => Ok(Taken::default()),
        }
    }

    /// Begins to look whether the files that are held are those that the peer has: the digest that is kept change by
    /// change does not tell of what became of them on the disk. What to tell the peer, if it can be asked now.
    pub fn examine(&mut self) -> Option<sync_response::Message> {
        let agreement = &mut self.agreement;
        if !agreement.compares_buckets
            || agreement.whole
            || agreement.asked.is_some()
            || !self.session.has_begun()
        {
            return None;
        }
        let bits = repair::bits_for(agreement.files);
        agreement.asked = Some(Asked::Digests { bits });
        Some(sync_response::Message::Compare(CompareBuckets { bits }))
    }

    async fn take_delta(
        &mut self,
        directory: &dyn Directory,
        delta: CatalogDelta,
        now_ms: i64,
    ) -> Result<Taken, Failure> {
        let mut batch = self.session.check(delta)?;
        let (changes, reset, complete) = (batch.changes.len(), batch.reset, batch.complete);
        if let Some(complete) = &mut batch.complete {
            complete.recount = reset || self.agreement.whole;
        }
        let applied = directory.apply(self.peer, self.key, batch, now_ms).await?;
        self.session.applied(applied.sequence, complete);
        let (peer, short, sequence) = (self.peer, self.peer.short(), applied.sequence);
        let is_complete = complete.is_some();
        tracing::debug!(
            peer_id = %peer,
            changes,
            sequence,
            "{changes} changes of peer {short} applied, up to {sequence} (reset: {reset}, complete: {is_complete})"
        );
        let taken = match self.agreement.after(reset, complete, applied.agrees) {
            None => self.acknowledge(),
            Some(Asked::Digests { bits }) => {
                let compare = sync_response::Message::Compare(CompareBuckets { bits: *bits });
                tracing::warn!(peer_id = %peer, "the catalog held differs from that of peer {short}; looking where");
                self.acknowledge().and(compare)
            }
            Some(_) => self.ask_for_all(),
        };
        Ok(Taken { changes: Some(changes as u64), ..taken })
    }

    async fn take_digests(
        &mut self,
        directory: &dyn Directory,
        said: &BucketDigests,
        now_ms: i64,
    ) -> Result<Taken, Failure> {
        let complete = self.session.check_answer(said.epoch, said.sequence)?;
        let told = repair::told(said)?;
        let Some(Asked::Digests { bits }) = self.agreement.asked else { return Ok(self.acknowledge()) };
        if bits != said.bits {
            return Ok(self.acknowledge());
        }
        let held = repair::held(directory, self.peer, bits).await?;
        match repair::plan(&held, &told, self.files_asked) {
            None => Ok(self.ask_for_all()),
            Some(questions) => {
                self.go_on(directory, bits, questions, Vec::new(), (0, complete), now_ms).await
            }
        }
    }

    async fn take_files(
        &mut self,
        directory: &dyn Directory,
        said: BucketFiles,
        now_ms: i64,
    ) -> Result<Taken, Failure> {
        let complete = self.session.check_answer(said.epoch, said.sequence)?;
        let BucketFiles { sequence, bits, buckets, files, too_many, .. } = said;
        if files.len() > repair::FILES_TOLD {
            return Err(Violation::Buckets { bits }.into());
        }
        let is_answer = |asked: &mut Asked| {
            matches!(asked, Asked::Files { bits: asked, questions, .. }
                if *asked == bits && questions.last() == Some(&buckets))
        };
        let Some(Asked::Files { mut questions, repaired, .. }) = self.agreement.asked.take_if(is_answer)
        else {
            return Ok(self.acknowledge());
        };
        if too_many {
            return Ok(self.ask_for_all());
        }
        questions.pop();
        let told = files.into_iter().map(|entry| {
            let file = session::check_file(sequence, entry)?;
            match buckets.binary_search(&bucket_of(&file.share, &file.name, bits)) {
                Ok(_) => Ok(file),
                Err(_) => Err(Violation::Elsewhere { share: file.share, name: file.name }),
            }
        });
        let told: Vec<FileRecord> = told.collect::<Result<_, Violation>>()?;
        let Some(held) = repair::held_in(directory, self.peer, bits, &buckets).await? else {
            return Ok(self.ask_for_all());
        };
        let changes = repair::difference(held, told);
        let repaired = repaired + changes.len() as u64;
        self.go_on(directory, bits, questions, changes, (repaired, complete), now_ms).await
    }

    /// Sets right what was found so far, and asks for the next buckets; after the last, compares all.
    async fn go_on(
        &mut self,
        directory: &dyn Directory,
        bits: u32,
        questions: Vec<Vec<u32>>,
        mut changes: Vec<Change>,
        (repaired, complete): (u64, Complete),
        now_ms: i64,
    ) -> Result<Taken, Failure> {
        let at_once = usize::try_from(self.files_asked).unwrap_or(usize::MAX);
        while changes.len() > at_once {
            let rest = changes.split_off(at_once);
            let batch = self.session.correction(std::mem::replace(&mut changes, rest), None);
            directory.apply(self.peer, self.key, batch, now_ms).await?;
        }
        let is_last = questions.is_empty();
        let complete = is_last.then_some(Complete { recount: true, ..complete });
        let batch = self.session.correction(changes, complete);
        let agrees = directory.apply(self.peer, self.key, batch, now_ms).await?.agrees;
        if let Some(buckets) = questions.last().cloned() {
            self.agreement.asked = Some(Asked::Files { bits, questions, repaired });
            let tell = sync_response::Message::Tell(TellBuckets { bits, buckets });
            return Ok(self.acknowledge().and(tell));
        }
        if !agrees {
            return Ok(self.ask_for_all());
        }
        self.agreement.asked = None;
        self.agreement.failures = 0;
        let differed = std::mem::take(&mut self.agreement.differed) || repaired > 0;
        let (peer, short, files) = (self.peer, self.peer.short(), repaired);
        if differed {
            tracing::warn!(
                peer_id = %peer,
                files,
                "the catalog held of peer {short} was wrong about {files} files, and is right again"
            );
        }
        Ok(Taken { repaired: differed.then_some(repaired), ..self.acknowledge() })
    }

    fn acknowledge(&self) -> Taken {
        let ack = Ack { applied_sequence: self.session.sequence(), resync: false };
        Taken { answers: vec![sync_response::Message::Ack(ack)], ..Taken::default() }
    }

    fn ask_for_all(&mut self) -> Taken {
        self.agreement.asked = Some(Asked::Whole);
        let (peer, short) = (self.peer, self.peer.short());
        tracing::warn!(
            peer_id = %peer,
            "the catalog held differs from that of peer {short}, which is to send it again"
        );
        let ack = Ack { applied_sequence: self.session.sequence(), resync: true };
        let is_hopeless = self.agreement.failures > MAX_RESYNCS;
        Taken {
            answers: vec![sync_response::Message::Ack(ack)],
            resync: true,
            is_hopeless,
            ..Taken::default()
        }
    }
}

impl Taken {
    fn and(mut self, answer: sync_response::Message) -> Taken {
        self.answers.push(answer);
        self
    }
}
