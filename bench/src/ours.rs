//! This project's programs as a contestant: `p2pctl fetch` on one peer, from one or more others, through their daemons.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use p2p_tests::{Network, Peer};

use crate::contest::Contestant;
use crate::gauge::Side;
use crate::product::Product;

/// A run that takes longer has failed.
pub(crate) const RUN: Duration = Duration::from_secs(900);

/// `p2pctl fetch` on the last peer of a network; the others are its sources.
#[derive(Debug)]
pub(crate) struct Fetch<'a> {
    name: String,
    network: &'a Network,
    args: Vec<String>,
    product: Product,
}

impl<'a> Fetch<'a> {
    /// Called `name` in the table; `args` are those of `p2pctl`, and `product` is what it leaves in the receiver's share.
    pub(crate) fn new(name: &str, network: &'a Network, args: &[&str], product: Product) -> Fetch<'a> {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Fetch { name: name.to_owned(), network, args, product }
    }
}

#[async_trait(?Send)]
impl Contestant for Fetch<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn members(&self) -> Result<Vec<(Side, u32)>> {
        members(self.network)
    }

    async fn run(&mut self) -> Result<()> {
        receiver(self.network)?.p2pctl().run_within(RUN, &self.args).await?.ok()?;
        Ok(())
    }

    async fn check(&mut self, thoroughly: bool) -> Result<()> {
        self.product.check(thoroughly)?;
        // What is here already would not be fetched again.
        self.product.remove()?;
        receiver(self.network)?.p2pctl().run_within(RUN, ["refresh"]).await?.ok()?;
        Ok(())
    }
}

/// The daemons of a network: the last peer receives, the others send.
pub(crate) fn members(network: &Network) -> Result<Vec<(Side, u32)>> {
    let mut members = vec![(Side::Helps, network.maestro()?.daemon().pid()?)];
    let count = network.peers().len();
    for (index, peer) in network.peers().iter().enumerate() {
        let side = if index + 1 == count { Side::Receives } else { Side::Sends };
        members.push((side, peer.daemon().pid()?));
    }
    Ok(members)
}

/// The peer of a network that receives.
pub(crate) fn receiver(network: &Network) -> Result<&Peer> {
    network.peer(network.peers().len())
}

/// Ends a network, and waits for it: what its daemons cost would else be counted in whatever run is measured next.
pub(crate) async fn close(mut network: Network) -> Result<()> {
    for number in 1..=network.peers().len() {
        let peer = network.peer_mut(number)?;
        if peer.daemon().is_running() {
            peer.daemon_mut().kill_9().await?;
        }
    }
    network.maestro_mut()?.daemon_mut().kill_9().await
}
