//! What a disk in memory keeps, loses and refuses.

use std::io;
use std::path::PathBuf;

use runtime::Disk;

use super::MemDisk;

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

#[test]
fn unsynced_names_and_bytes_are_lost() {
    let disk = MemDisk::new();
    disk.create_dir_all(&path("/data")).unwrap();
    disk.sync_dir(&path("/data")).unwrap();
    let file = disk.create(&path("/data/a")).unwrap();
    file.write_all_at(b"one", 0).unwrap();
    file.sync_data().unwrap();
    assert!(!disk.crash(0).exists(&path("/data/a")), "the name was not synced");
    disk.sync_dir(&path("/data")).unwrap();
    file.write_all_at(b"two three", 0).unwrap();
    assert_eq!(disk.crash(0).read(&path("/data/a")).unwrap(), b"one");
    let mut seen: Vec<Vec<u8>> = (1..200).map(|s| disk.crash(s).read(&path("/data/a")).unwrap()).collect();
    seen.sort();
    seen.dedup();
    assert!(seen.contains(&b"one".to_vec()) && seen.contains(&b"two three".to_vec()), "{seen:?}");
    disk.rename(&path("/data/a"), &path("/data/b")).unwrap();
    let after = |seed| disk.crash(seed).list(&path("/data")).unwrap();
    assert_eq!(after(0), ["a"]);
    assert!((1..50).any(|s| after(s) == ["b"]));
}

#[test]
fn sectors_tear_apart() {
    let disk = MemDisk::new();
    let file = disk.create(&path("/a")).unwrap();
    file.allocate(4096).unwrap();
    disk.sync_dir(&path("/")).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    let torn = (1..50).map(|seed| disk.crash(seed).read(&path("/a")).unwrap());
    assert!(torn.into_iter().any(|b| b.contains(&1) && b.contains(&0) && b.len() == 4096));
    assert_eq!(disk.crash(0).read(&path("/a")).unwrap(), [0; 4096]);
    file.set_len(10).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.crash(0).read(&path("/a")).unwrap(), [1; 10]);
}

#[test]
fn stops_and_fills_up() {
    let disk = MemDisk::new().with_capacity_limit(10);
    let file = disk.create(&path("/a")).unwrap();
    file.write_all_at(&[0; 10], 0).unwrap();
    assert_eq!(file.write_all_at(&[0; 1], 10).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_all_at(&[1; 10], 0).unwrap();
    disk.remove_file(&path("/a")).unwrap();
    assert_eq!(disk.used(), 0);
    disk.fail_after(1);
    let file = disk.create(&path("/b")).unwrap();
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.write_all_at(b"y", 0).is_err() && disk.sync_dir(&path("/")).is_err());
    disk.heal();
    file.sync_data().unwrap();
    assert_eq!(disk.read(&path("/b")).unwrap(), b"x", "the write that was cut down may have happened");
}

#[test]
fn a_failed_sync_loses_what_is_read_back_all_the_same() {
    let disk = MemDisk::new();
    let file = disk.create(&path("/a")).unwrap();
    file.allocate(2048).unwrap();
    disk.sync_dir(&path("/")).unwrap();
    disk.fail_sync_after(0);
    file.write_all_at(&[7; 100], 0).unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.read(&path("/a")).unwrap()[..100], [7; 100]);
    for seed in 0..20 {
        assert_eq!(disk.crash(seed).read(&path("/a")).unwrap(), [0; 2048], "seed {seed}");
    }
    file.write_all_at(&[8; 10], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.crash(0).read(&path("/a")).unwrap()[..100], [&[8; 10][..], &[7; 90]].concat());
}

#[test]
fn folders_move_and_go() {
    let disk = MemDisk::new();
    disk.create_dir_all(&path("/d/x/y")).unwrap();
    disk.create(&path("/d/x/y/f")).unwrap();
    disk.rename(&path("/d/x"), &path("/d/z")).unwrap();
    assert!(disk.exists(&path("/d/z/y/f")) && !disk.exists(&path("/d/x")));
    disk.remove_dir_all(&path("/d/z")).unwrap();
    assert_eq!(disk.list(&path("/d")).unwrap(), Vec::<String>::new());
    assert!(disk.create(&path("/nowhere/f")).is_err());
}
