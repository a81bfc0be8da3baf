//! Care of a table in a bucket.

use deltalake_core::table::state::DeltaTableState;
use object_store::path::Path as Location;
use object_store::{ObjectStoreExt, PutPayload};

use super::super::care::erasing::Tokens;
use super::super::care::{commits, healthy, stands};
use super::*;
use crate::table::care::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_a_bucket_is_packed_cleared_mended_and_erased_from() {
    let Some(bucket) = bucket() else { return };
    let address = format!("s3://{bucket}/{}/posts", uuid::Uuid::new_v4());
    commits(&address, 0, 8, 1).await;
    let packed = compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    assert_eq!(packed.partitions.len(), 2);
    let at_once = VacuumOptions {
        retention: std::time::Duration::ZERO,
        force: true,
        dry_run: false,
    };
    assert_eq!(vacuum(&address, &store(), &at_once).await.unwrap().files, 16);
    assert_eq!(counts(&address).await, (80, 80));
    commits(&address, 8, 10, 1).await;

    let objects = store().resolve(&address).unwrap().log_store.object_store(None);
    let entry = Location::from(format!("_delta_log/{:020}.json", 11));
    let whole = objects.get(&entry).await.unwrap().bytes().await.unwrap();
    objects
        .put(&entry, PutPayload::from(whole.slice(..whole.len() / 2)))
        .await
        .unwrap();
    let repair = DoctorOptions {
        repair: true,
        roll_back: true,
        ..DoctorOptions::default()
    };
    let report = doctor(&address, &store(), &repair).await.unwrap();
    assert_eq!((report.harm(), report.version), (0, Some(10)), "{report:#?}");
    commits(&address, 9, 10, 1).await;
    assert_eq!((counts(&address).await, stands(&address).await), ((100, 100), 100));

    let location = store().resolve(&address).unwrap();
    let state = DeltaTableState::try_new(&location.log_store, None).await.unwrap();
    let smallest = state
        .log_data()
        .iter()
        .min_by_key(|view| view.size())
        .unwrap()
        .object_store_path();
    let mut bytes = objects.get(&smallest).await.unwrap().bytes().await.unwrap().to_vec();
    let half = bytes.len() / 2;
    bytes[4..half].iter_mut().for_each(|byte| *byte ^= 1);
    objects.put(&smallest, PutPayload::from(bytes)).await.unwrap();
    let report = doctor(&address, &store(), &repair).await.unwrap();
    assert_eq!(report.harm(), 0, "{report:#?}");
    assert_eq!(counts(&address).await, (95, 95));

    let erased = erase(&address, &store(), Arc::new(Tokens(0..10)), false).await.unwrap();
    assert_eq!((erased.rows, counts(&address).await), (10, (85, 85)));
    assert!(
        erased.deleted >= 3,
        "what was written anew, and what was set aside: {erased:?}"
    );
    healthy(&address).await;
}
