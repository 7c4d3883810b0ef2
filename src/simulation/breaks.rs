//! Rules that can be broken on purpose, each by the simulated world and never by the code under it: an invariant that
//! nothing can violate proves nothing.

use clap::ValueEnum;

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
    /// The bucket says that it took an object, and did not.
    BucketLies,
}

impl Break {
    pub const ALL: [Break; 10] = [
        Break::SyncLies,
        Break::AckEarly,
        Break::Twice,
        Break::Values,
        Break::SkipsOwner,
        Break::HintsLost,
        Break::LogDamaged,
        Break::Refuses,
        Break::StaysCut,
        Break::BucketLies,
    ];

    /// As the command line has it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
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
            Break::StaysCut => &["settles", "converges"],
            Break::BucketLies => &["bucket_has_it"],
        }
    }
}
