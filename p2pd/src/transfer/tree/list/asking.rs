//! What others have of a directory, written down page by page: what the networks' maestros know, what friends share beside
//! that, and where a maestro is silent or knows nothing, what others have that can be reached.

use futures::future::join_all;
use p2p_service::status::counted;

use super::{Listed, PAGE, TreeError, TreeOrder};
use crate::discovery::{AskError, FoundFile, Page, PageQuery, PeerRef};
use crate::transfer::jobs::Transfers;
use crate::transfer::store::{Told, TreeFile};
use crate::transfer::tree::Pattern;

/// Pages of a peer's files, one after the other, that lead no further before it is asked for no more.
const STANDSTILL: usize = 16;
/// Bytes that a content has at the most (4 TiB).
const LONGEST_CONTENT: u64 = 1 << 42;

impl Transfers {
    /// Writes down what others have of it; whether there is any.
    pub(super) async fn ask(&self, order: &TreeOrder, listed: &mut Listed) -> Result<bool, TreeError> {
        let locator = &self.shared.locator;
        let first = query(&order.what);
        if let Some(peer) = &order.from {
            let page = locator.browse_peer(peer, &first).await?;
            return self.ask_peer(peer, page, order, listed).await;
        }
        let (mut is_any, mut why) = (false, None);
        if locator.is_in_network() {
            (is_any, why) = self.ask_networks(first.clone(), order, listed).await?;
        }
        // What friends share among themselves the maestro does not know.
        let peers = if is_any && why.is_none() { locator.friends() } else { locator.others() };
        if peers.is_empty() && !locator.is_in_network() {
            return Err(AskError::NoMaestro.into());
        }
        let first = join_all(peers.iter().map(|peer| locator.browse_peer(peer, &first))).await;
        let mut silent = 0;
        for (peer, page) in peers.iter().zip(first) {
            let told = match page {
                Ok(page) => self.ask_peer(peer, page, order, listed).await,
                Err(error) => Err(error.into()),
            };
            match told {
                Ok(more) => is_any |= more,
                Err(TreeError::Ask(_)) => silent += 1,
                Err(error) => return Err(error),
            }
        }
        listed.found.incomplete = match (why, silent) {
            (Some(why), 0) => Some(why),
            (Some(why), _) => Some(format!("{why}; {silent} peers do not answer either")),
            (None, 1..) if !locator.is_in_network() => {
                Some(counted(silent, "friend does not answer", "friends do not answer"))
            }
            // A friend that is away may have more, and may be away for good: that says nothing of what the network has.
            (None, _) => None,
        };
        Ok(is_any)
    }

    /// Writes down what the maestros of the networks know; whether there is any, and why that may not be all.
    async fn ask_networks(
        &self,
        mut query: PageQuery,
        order: &TreeOrder,
        listed: &mut Listed,
    ) -> Result<(bool, Option<String>), TreeError> {
        let locator = &self.shared.locator;
        let (mut is_any, mut why) = (false, None);
        let mut page = locator.browse_network(&query).await?;
        loop {
            // What one network does not tell takes nothing from what another one does: peers are asked for the rest.
            why = why.or(page.incomplete.take());
            let Some(cursor) = page.next.take() else {
                is_any |= self.write_down(order, listed, page).await?;
                return Ok((is_any, why));
            };
            query.cursor = cursor;
            // The next page is on its way while this one is written down.
            let next = locator.browse_network(&query);
            let (written, next) = tokio::join!(self.write_down(order, listed, page), next);
            is_any |= written?;
            page = next?;
        }
    }

    /// Writes down this page of a peer's files, and those that follow.
    async fn ask_peer(
        &self,
        peer: &PeerRef,
        mut page: Page,
        order: &TreeOrder,
        listed: &mut Listed,
    ) -> Result<bool, TreeError> {
        let (mut is_any, mut query) = (false, query(&order.what));
        let (mut furthest, mut standstill) = (None, 0);
        loop {
            let next = page.next.take();
            // In order of their names: whoever goes round in circles would be asked without end.
            let last = page.files.iter().map(|file| file.name.clone()).max();
            standstill = if last > furthest { 0 } else { standstill + 1 };
            furthest = furthest.max(last);
            is_any |= self.write_down_told(order, listed, page, |_| Told::OfItself).await?;
            match next {
                Some(cursor) if cursor != query.cursor && standstill < STANDSTILL => query.cursor = cursor,
                _ => return Ok(is_any),
            }
            page = self.shared.locator.browse_peer(peer, &query).await?;
        }
    }

    async fn write_down(
        &self,
        order: &TreeOrder,
        listed: &mut Listed,
        page: Page,
    ) -> Result<bool, TreeError> {
        self.write_down_told(order, listed, page, |file| Told::OfAll(file.sources)).await
    }

    async fn write_down_told(
        &self,
        order: &TreeOrder,
        listed: &mut Listed,
        page: Page,
        told: impl Fn(&FoundFile) -> Told,
    ) -> Result<bool, TreeError> {
        let (mut files, mut unproven) = (Vec::with_capacity(page.files.len()), Vec::new());
        for file in page.files.into_iter().filter(|file| order.what.has(file.name.as_str())) {
            let told = told(&file);
            match (file.content, file.size) {
                (Some(content), Some(size)) => {
                    // No content is longer: whoever says so of one would only spoil the sums. Who has it proves its length.
                    let size = if size <= LONGEST_CONTENT { size } else { 0 };
                    files.push((TreeFile { name: file.name, content, size }, told));
                }
                _ => unproven.push(file.name),
            }
        }
        if !unproven.is_empty() {
            listed.found.unproven += unproven.len() as u64;
            self.shared.store.list_unproven(listed.id, unproven).await?;
        }
        let is_any = !files.is_empty();
        self.shared.store.list_files(listed.id, files).await?;
        Ok(is_any)
    }
}

fn query(what: &Pattern) -> PageQuery {
    PageQuery { prefix: what.prefix().to_owned(), limit: PAGE, ..PageQuery::default() }
}
