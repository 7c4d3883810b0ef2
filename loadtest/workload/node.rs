//! Series as a fleet of node_exporters would have them: names, labels, and how their values move.

use super::mix;

/// One series: sorted labels and the shape of its values.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: Vec<(String, String)>,
    pub shape: Shape,
}

impl Series {
    /// The metric.
    pub fn name(&self) -> &str {
        self.labels.iter().find(|(name, _)| name == "__name__").map_or("", |(_, value)| value)
    }
}

/// How values move; what a fleet really has: about two in five never change, two in five only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Constant,
    /// Whole numbers that grow by a varying amount.
    Counter,
    /// Seconds with two decimals that grow, as CPU time does.
    Seconds,
    /// Whole numbers that wander, as bytes of memory do.
    Gauge,
    /// Numbers with many digits.
    Ratio,
    /// The nth cumulative bucket of a histogram: the same pace for all of a kind, so that buckets never cross.
    Bucket(u8),
    /// Always 1, as info metrics are.
    One,
}

/// Percent of all requests that are in each bucket or below.
const BUCKET_SHARES: [u64; 11] = [2, 6, 18, 37, 61, 80, 90, 95, 98, 99, 100];

impl Shape {
    /// The value at `step` for a series with random `key`. Growing shapes never shrink: each step adds a part
    /// of its slope below the next step's.
    pub fn value(self, key: u64, step: u32) -> f64 {
        let noise = mix(key ^ (u64::from(step) << 32 | 0x51));
        let base = mix(key ^ 0xb) % 1_000_000;
        let slope = 1 + mix(key ^ 0x5) % 1000;
        match self {
            Shape::Constant => (mix(key ^ 0xc) % 4096) as f64,
            Shape::Counter => (base + u64::from(step) * slope + noise % slope) as f64,
            Shape::Seconds => (base + u64::from(step) * slope + noise % slope) as f64 / 100.0,
            Shape::Gauge => (base * 4096 + noise % 65_536 * 4096) as f64,
            Shape::Bucket(at) => {
                let total = u64::from(step) * 100 + mix(u64::from(step)) % 100;
                (total * BUCKET_SHARES[usize::from(at).min(10)] / 100) as f64
            }
            Shape::One => 1.0,
            Shape::Ratio => (noise >> 11) as f64 / (1u64 << 53) as f64,
        }
    }
}

/// Metric, its varying label with the values it takes, and the shape of its values.
struct Family {
    name: &'static str,
    labels: &'static [(&'static str, &'static [&'static str])],
    shape: Shape,
}

const CPUS: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
const MODES: &[&str] = &["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"];
const DISKS: &[&str] = &["dm-0", "dm-1", "nvme0n1", "nvme1n1", "sda", "sdb"];
const NICS: &[&str] = &["bond0", "docker0", "eth0", "eth1", "lo", "veth1a2b3c4"];
const MOUNTS: &[&str] = &["/", "/boot", "/boot/efi", "/home", "/run", "/tmp", "/var", "/var/lib/docker"];
const COLLECTORS: &[&str] =
    &["arp", "bcache", "cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "stat", "time"];

const FAMILIES: &[Family] = &[
    Family {
        name: "node_cpu_seconds_total",
        labels: &[("cpu", CPUS), ("mode", MODES)],
        shape: Shape::Seconds,
    },
    Family {
        name: "node_cpu_guest_seconds_total",
        labels: &[("cpu", CPUS), ("mode", &["nice", "user"])],
        shape: Shape::Constant,
    },
    Family { name: "node_cpu_frequency_hertz", labels: &[("cpu", CPUS)], shape: Shape::Gauge },
    Family { name: "node_disk_read_bytes_total", labels: &[("device", DISKS)], shape: Shape::Counter },
    Family { name: "node_disk_written_bytes_total", labels: &[("device", DISKS)], shape: Shape::Counter },
    Family { name: "node_disk_reads_completed_total", labels: &[("device", DISKS)], shape: Shape::Counter },
    Family { name: "node_disk_writes_completed_total", labels: &[("device", DISKS)], shape: Shape::Counter },
    Family { name: "node_disk_io_time_seconds_total", labels: &[("device", DISKS)], shape: Shape::Seconds },
    Family { name: "node_disk_io_now", labels: &[("device", DISKS)], shape: Shape::Constant },
    Family {
        name: "node_filesystem_avail_bytes",
        labels: &[("device", &["/dev/nvme0n1p2"]), ("fstype", &["ext4"]), ("mountpoint", MOUNTS)],
        shape: Shape::Gauge,
    },
    Family {
        name: "node_filesystem_size_bytes",
        labels: &[("device", &["/dev/nvme0n1p2"]), ("fstype", &["ext4"]), ("mountpoint", MOUNTS)],
        shape: Shape::Constant,
    },
    Family {
        name: "node_filesystem_files",
        labels: &[("device", &["/dev/nvme0n1p2"]), ("fstype", &["ext4"]), ("mountpoint", MOUNTS)],
        shape: Shape::Constant,
    },
    Family {
        name: "node_filesystem_files_free",
        labels: &[("device", &["/dev/nvme0n1p2"]), ("fstype", &["ext4"]), ("mountpoint", MOUNTS)],
        shape: Shape::Gauge,
    },
    Family {
        name: "node_filesystem_readonly",
        labels: &[("device", &["/dev/nvme0n1p2"]), ("fstype", &["ext4"]), ("mountpoint", MOUNTS)],
        shape: Shape::Constant,
    },
    Family { name: "node_network_receive_bytes_total", labels: &[("device", NICS)], shape: Shape::Counter },
    Family { name: "node_network_transmit_bytes_total", labels: &[("device", NICS)], shape: Shape::Counter },
    Family { name: "node_network_receive_packets_total", labels: &[("device", NICS)], shape: Shape::Counter },
    Family {
        name: "node_network_transmit_packets_total",
        labels: &[("device", NICS)],
        shape: Shape::Counter,
    },
    Family { name: "node_network_receive_errs_total", labels: &[("device", NICS)], shape: Shape::Constant },
    Family { name: "node_network_receive_drop_total", labels: &[("device", NICS)], shape: Shape::Constant },
    Family { name: "node_network_up", labels: &[("device", NICS)], shape: Shape::Constant },
    Family { name: "node_network_mtu_bytes", labels: &[("device", NICS)], shape: Shape::Constant },
    Family { name: "node_memory_MemTotal_bytes", labels: &[], shape: Shape::Constant },
    Family { name: "node_memory_MemFree_bytes", labels: &[], shape: Shape::Gauge },
    Family { name: "node_memory_MemAvailable_bytes", labels: &[], shape: Shape::Gauge },
    Family { name: "node_memory_Cached_bytes", labels: &[], shape: Shape::Gauge },
    Family { name: "node_load1", labels: &[], shape: Shape::Ratio },
    Family { name: "node_load5", labels: &[], shape: Shape::Ratio },
    Family { name: "node_context_switches_total", labels: &[], shape: Shape::Counter },
    Family { name: "node_intr_total", labels: &[], shape: Shape::Counter },
    Family { name: "node_boot_time_seconds", labels: &[], shape: Shape::Constant },
    Family {
        name: "node_scrape_collector_duration_seconds",
        labels: &[("collector", COLLECTORS)],
        shape: Shape::Ratio,
    },
    Family {
        name: "node_scrape_collector_success",
        labels: &[("collector", COLLECTORS)],
        shape: Shape::Constant,
    },
    Family { name: "up", labels: &[], shape: Shape::Constant },
];

/// `count` distinct series: whole targets one after the other, the last one cut short.
pub fn series(count: usize, seed: u64) -> Vec<Series> {
    let mut out = Vec::with_capacity(count);
    for target in 0.. {
        let instance = format!("node-{:05}.zone-{}.example.net:9100", target, mix(seed ^ target) % 3);
        for family in FAMILIES {
            let mut sets: Vec<Vec<(String, String)>> = vec![vec![
                ("__name__".to_owned(), family.name.to_owned()),
                ("cluster".to_owned(), "prod-eu-1".to_owned()),
                ("instance".to_owned(), instance.clone()),
                ("job".to_owned(), "node".to_owned()),
            ]];
            for (name, values) in family.labels {
                sets = sets
                    .iter()
                    .flat_map(|set| {
                        values.iter().map(move |value| {
                            let mut set = set.clone();
                            set.push(((*name).to_owned(), (*value).to_owned()));
                            set
                        })
                    })
                    .collect();
            }
            for mut labels in sets {
                if out.len() == count {
                    return out;
                }
                labels.sort();
                out.push(Series { labels, shape: family.shape });
            }
        }
    }
    out
}
