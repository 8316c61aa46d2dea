//! Finding and opening the files of contents, one after another, for one caller. All its calls block: who asks for
//! thousands of files is served by one thread that finds, opens and reads, since handing each file to other threads takes
//! longer than all three.

use std::time::{Duration, Instant};

use p2p_content::ContentHash;
use tokio::runtime::Handle;

use super::admission::Guest;
use super::contents::{Contents, Held, NoBytes, unreadable};
use crate::catalog::{Fact, Reader, Viewer};
use crate::shares::{OpenError, Opener};

/// How old what the catalog says may be: asking it many things of one moment costs half as much as asking each anew.
const MOMENT: Duration = Duration::from_millis(100);

/// Finds and opens files.
pub(super) struct Finder {
    contents: Contents,
    opener: Opener,
    /// The catalog as it was then.
    catalog: Option<(Reader, Instant)>,
}

impl Finder {
    pub(super) fn new(contents: Contents, opener: Opener) -> Self {
        Self { contents, opener, catalog: None }
    }

    /// Nothing is to be found now: lets the catalog go on.
    pub(super) fn pause(&mut self) {
        self.catalog = None;
    }

    /// Nothing is to be found for long: lets go of all that is open still.
    pub(super) fn rest(&mut self) {
        self.pause();
        self.opener.rest();
    }

    /// Opens a file with this content that the guest may see, or the unfinished one.
    pub(super) fn open(&mut self, content: ContentHash, guest: &Guest) -> Result<Held, NoBytes> {
        let why = match self.open_whole(content, guest) {
            Err(why @ (NoBytes::NotFound | NoBytes::Changed)) => why,
            opened => return opened,
        };
        let swarm = self.contents.fetched(content, guest.viewer).ok_or(why)?;
        let unfinished = swarm.part().ok_or(NoBytes::NotFound)?;
        Ok(Held::part(unfinished, swarm))
    }

    fn open_whole(&mut self, content: ContentHash, guest: &Guest) -> Result<Held, NoBytes> {
        let outboxed = match self.open_copy(content, guest.viewer) {
            Ok(held) => return Ok(held),
            Err(why) => {
                // A shared copy that is no longer what it was says nothing of the one that was sent to this peer.
                let finding = self.contents.outbox().find(guest.id, content);
                Handle::current().block_on(finding).map_err(unreadable)?.ok_or(why)?
            }
        };
        match outboxed.file {
            Some(file) => Held::whole(file).map_err(unreadable),
            None => self.open_copy(content, Viewer::Own),
        }
    }

    /// Opens a file that has this content. What the catalog said a moment ago may be wrong by now: that nobody has it, or
    /// that it is so, is asked again before it is believed.
    fn open_copy(&mut self, content: ContentHash, viewer: Viewer) -> Result<Held, NoBytes> {
        let was_fresh = self.catalog.is_none();
        let copies = self.copies(content, viewer)?;
        match self.open_first(&copies) {
            Err(NoBytes::NotFound | NoBytes::Changed) if !was_fresh => {
                self.catalog = None;
                let copies = self.copies(content, viewer)?;
                self.open_first(&copies)
            }
            opened => opened,
        }
    }

    fn copies(&mut self, content: ContentHash, viewer: Viewer) -> Result<Vec<Fact>, NoBytes> {
        let (reader, since) = match self.catalog.take().filter(|(_, since)| since.elapsed() < MOMENT) {
            Some(catalog) => catalog,
            None => {
                let mut reader = self.contents.catalog().reader().map_err(unreadable)?;
                reader.stay().map_err(unreadable)?;
                (reader, Instant::now())
            }
        };
        let copies = reader.find_content(&content, viewer).map_err(unreadable);
        self.catalog = Some((reader, since));
        copies
    }

    /// Opens one of these files; where the same bytes are shared twice, one that still is as announced.
    pub(super) fn open_first(&mut self, facts: &[Fact]) -> Result<Held, NoBytes> {
        let mut why = NoBytes::NotFound;
        for fact in facts {
            match self.opener.open(fact) {
                Ok(file) => return Held::whole(file).map_err(unreadable),
                Err(OpenError::Changed { .. }) => why = NoBytes::Changed,
                Err(error) => {
                    let (share, name) = (&fact.share, &fact.name);
                    tracing::warn!(share, file = %name, %error, "a shared file cannot be served: {error}");
                    why = NoBytes::Unreadable;
                }
            }
        }
        Err(why)
    }
}
