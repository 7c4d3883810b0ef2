//! What a tenant costs the engine while it does nothing, counted in bytes.

mod rig;

use rig::{NOON, Rig, tenant};
use storage::{Append, Verdict};

#[test]
fn a_tenant_with_one_series_takes_less_than_two_kilobytes_t14() {
    const TENANTS: u64 = 2000;
    let rig = Rig::new();
    let push = |n: u64| {
        let tenant = tenant(&format!("tenant-{n:06}"));
        let (batch, all) = rig::batch(&tenant, &[("up", &[(NOON, 1.0)])]);
        rig.tsdb.append(&tenant, &batch, &all, NOON, &mut [Verdict::Unavailable]).unwrap();
    };
    // What slabs and tables take at once is not one tenant's.
    (0..TENANTS).for_each(push);
    let counted = allocation_counter::measure(|| (TENANTS..2 * TENANTS).for_each(push));
    let each = counted.bytes_current / TENANTS as i64;
    println!("{each} bytes a tenant with one series");
    assert!(each < 2048, "{each} bytes a tenant");
}
