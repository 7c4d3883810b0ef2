//! What a shard holds of each tenant: the postings, and the windows that hold samples.

use chunk::cut::window_start;
use model::Timestamp;

use super::postings::Postings;

#[derive(Default)]
pub(crate) struct ShardTenant {
    pub postings: Postings,
    /// Windows with samples that belong to no freeze, few and in no order.
    pub windows: Vec<Window>,
}

/// A window of time that holds samples of one tenant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub start: Timestamp,
    /// No record before this position holds samples of the window.
    pub first_position: u64,
    /// Door times of the first and the last write.
    pub first_write: Timestamp,
    pub last_write: Timestamp,
}

/// The tenants that have series in a shard, by their index.
#[derive(Default)]
pub(crate) struct ShardTenants(Vec<Option<Box<ShardTenant>>>);

impl ShardTenants {
    pub(crate) fn get(&self, index: u32) -> Option<&ShardTenant> {
        self.0.get(index as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut ShardTenant> {
        self.0.get_mut(index as usize)?.as_deref_mut()
    }

    /// A tenant, which is made if it is not there.
    pub(crate) fn made(&mut self, index: u32) -> &mut ShardTenant {
        let index = index as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index].get_or_insert_default()
    }

    pub(crate) fn drop(&mut self, index: u32) {
        if let Some(place) = self.0.get_mut(index as usize) {
            *place = None;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &ShardTenant)> {
        self.0.iter().zip(0..).filter_map(|(tenant, index)| Some((index, tenant.as_deref()?)))
    }

    /// Bytes of memory of the table itself.
    pub(crate) fn table_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Option<Box<ShardTenant>>>()
    }

    /// Notes that a tenant has a sample at `t`. `position`: no earlier record holds it.
    #[inline]
    pub(crate) fn note_window(
        &mut self,
        tenant: u32,
        t: Timestamp,
        block_range: i64,
        position: u64,
        judged_at: Timestamp,
    ) {
        let windows = &mut self.made(tenant).windows;
        for window in windows.iter_mut().rev() {
            if t >= window.start && t - window.start < block_range {
                window.last_write = window.last_write.max(judged_at);
                return;
            }
        }
        let start = window_start(t, block_range);
        windows.push(Window {
            start,
            first_position: position,
            first_write: judged_at,
            last_write: judged_at,
        });
    }
}

/// Adds a window to a list that has each start once.
pub(crate) fn merge_window(windows: &mut Vec<Window>, window: Window) {
    match windows.iter_mut().find(|w| w.start == window.start) {
        None => windows.push(window),
        Some(w) => {
            w.first_position = w.first_position.min(window.first_position);
            w.first_write = w.first_write.min(window.first_write);
            w.last_write = w.last_write.max(window.last_write);
        }
    }
}
