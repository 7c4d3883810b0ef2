//! Rules that can be broken on purpose, each by the simulated world and never by the code under it: an invariant that
//! nothing can violate proves nothing.

use clap::ValueEnum;

use crate::plan::Plan;

/// What goes wrong that must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Break {
    /// Disks say that they have synced, and have not.
    SyncLies,
    /// The network says that a peer stored what never reached it, so that doors acknowledge at W - 1.
    AckEarly,
    /// What the network brings twice comes with other times the second time.
    Twice,
    /// The network changes values on their way to a peer.
    Values,
    /// The querier leaves an owner out that it needs, and calls the answer complete.
    SkipsOwner,
    /// What is kept for a peer is gone after a restart in good order.
    HintsLost,
    /// A durable record in the middle of a log is damaged while its node is away.
    LogDamaged,
    /// Doors refuse, now and then, what nothing is wrong with.
    Refuses,
    /// One way between two nodes never comes back.
    StaysCut,
    /// Doors put one sender off, whenever it comes.
    PutsOff,
    /// The bucket says that it took an object, and did not.
    BucketLies,
    /// In the middle of a change, which does not end, routers are told of the new ring alone.
    NewRingAlone,
    /// Receivers take writes of ring epochs that are over, of which a router that sleeps knows no better.
    StaleTaken,
    /// The control plane believes that what a node has is in the bucket as soon as it is to be brought there.
    ClearEarly,
    /// What a receiver promises does not reach the control plane.
    PromisesLost,
    /// The store says that it shows blocks that it has not found.
    StoreLies,
    /// What is agreed on of an HA pair is forgotten at once, so that every door listens to whom it hears first.
    ElectionsLost,
    /// What the standby of an HA pair sends is acknowledged and reaches nobody.
    StandbyUnheard,
    /// Machines that have left the ring are taken away before they say that they are drained.
    DrainedUnasked,
}

impl Break {
    pub const ALL: [Break; 19] = [
        Break::SyncLies,
        Break::AckEarly,
        Break::Twice,
        Break::Values,
        Break::SkipsOwner,
        Break::HintsLost,
        Break::LogDamaged,
        Break::Refuses,
        Break::StaysCut,
        Break::PutsOff,
        Break::BucketLies,
        Break::NewRingAlone,
        Break::StaleTaken,
        Break::ClearEarly,
        Break::PromisesLost,
        Break::StoreLies,
        Break::DrainedUnasked,
        Break::ElectionsLost,
        Break::StandbyUnheard,
    ];

    /// As the command line has it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it can make a difference in the run of this seed: some need a ring that changes, or an HA pair.
    pub fn concerns(self, seed: u64) -> bool {
        let plan = Plan::of(seed);
        match self {
            Break::ElectionsLost => plan.pair.is_some() && plan.ring.is_some(),
            Break::StandbyUnheard => plan.pair.is_some(),
            Break::NewRingAlone
            | Break::StaleTaken
            | Break::ClearEarly
            | Break::PromisesLost
            | Break::StoreLies
            | Break::DrainedUnasked => plan.ring.is_some() && plan.pair.is_none(),
            _ => plan.ring.is_none() && plan.pair.is_none(),
        }
    }

    /// Names of the invariants of which at least one must notice.
    pub fn caught_by(self) -> &'static [&'static str] {
        match self {
            Break::SyncLies => &["acked_is_kept", "log_opens", "complete_is_complete"],
            Break::AckEarly => &["acked_is_kept", "complete_is_complete"],
            Break::Twice => &["once"],
            Break::Values => &["values_stay"],
            Break::SkipsOwner => &["complete_is_complete"],
            Break::HintsLost => &["converges"],
            Break::LogDamaged => &["log_opens"],
            Break::Refuses => &["refused_for_cause"],
            Break::StaysCut => &["converges"],
            Break::PutsOff => &["settles"],
            Break::BucketLies => &["bucket_has_it"],
            Break::NewRingAlone | Break::StaleTaken | Break::ClearEarly => {
                &["acked_is_readable", "complete_is_complete"]
            }
            Break::ElectionsLost | Break::StandbyUnheard => &["pair_is_seen_once"],
            Break::PromisesLost => &["changes_end"],
            Break::StoreLies | Break::DrainedUnasked => &["drained_is_spare"],
        }
    }
}
