//! What `/metrics` says of the control plane.

use agreed::View;

use crate::{Handle, Progress};

/// Sets the gauges from what is known just now.
pub fn measure(handle: &Handle) {
    let (about, seen) = (handle.about(), handle.now());
    let state = &seen.state;
    let yes = |yes: bool| f64::from(u8::from(yes));
    let progress = Progress::of(state);
    metrics::gauge!("tributary_control_revision").set(seen.revision as f64);
    metrics::gauge!("tributary_control_generation").set(f64::from(state.generation));
    metrics::gauge!("tributary_control_feature_level").set(f64::from(state.level));
    metrics::gauge!("tributary_control_in_touch").set(yes(about.in_touch));
    metrics::gauge!("tributary_control_is_voter").set(yes(about.voter));
    metrics::gauge!("tributary_control_is_leader")
        .set(yes(about.voter && about.leader.is_some_and(|leader| leader == about.address)));
    metrics::gauge!("tributary_control_nodes").set(state.nodes.len() as f64);
    metrics::gauge!("tributary_control_elections").set(state.elections.iter().count() as f64);
    metrics::gauge!("tributary_control_limits_version").set(state.limits.version as f64);
    metrics::gauge!("tributary_control_ring_epoch").set(progress.epoch as f64);
    metrics::gauge!("tributary_control_ring_members").set(progress.members.len() as f64);
    metrics::gauge!("tributary_control_ring_warming").set(state.warming().len() as f64);
    let joint = matches!(state.current().map(|current| &current.view), Some(View::Joint { .. }));
    metrics::gauge!("tributary_control_ring_joint").set(yes(joint));
    metrics::gauge!("tributary_control_ring_draining").set(progress.draining.len() as f64);
    metrics::gauge!("tributary_control_ring_unretired_epochs").set(progress.unretired.len() as f64);
}
