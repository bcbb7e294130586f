//! Stored manifests, compressed, and a cache of the catalogues that are made of them.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jiff::civil::Date;
use serde::Serialize;
use siphasher::sip128::SipHasher13;

use super::super::manifest::Manifest;
use super::super::matching::Catalogue;
use super::super::store::{StoredManifest, Version};

/// Packages in cached catalogues, some 300 bytes each. The latest catalogue is cached whatever its size.
const CACHED_PACKAGES_MAX: usize = 300_000;

/// The latest at the end.
#[derive(Debug, Default)]
pub(super) struct Catalogues(Mutex<Vec<Cached>>);

#[derive(Debug)]
struct Cached {
    date: Date,
    version: Version,
    catalogue: Arc<Catalogue>,
}

impl Catalogues {
    pub(super) fn get(&self, date: Date, version: Version) -> Option<Arc<Catalogue>> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |one: &Cached| (one.date, one.version) == (date, version);
        let place = cache.iter().position(is_it)?;
        let found = cache.remove(place);
        let catalogue = Arc::clone(&found.catalogue);
        cache.push(found);
        Some(catalogue)
    }

    /// Replaces the day's catalogue.
    pub(super) fn put(&self, date: Date, version: Version, catalogue: Arc<Catalogue>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|one| one.date != date);
        cache.push(Cached {
            date,
            version,
            catalogue,
        });
        let packages = |one: &Cached| one.catalogue.packages();
        while cache.len() > 1 && cache.iter().map(packages).sum::<usize>() > CACHED_PACKAGES_MAX {
            cache.remove(0);
        }
    }
}

/// The stored and shown JSON of a manifest.
#[derive(Serialize)]
struct Written<'a> {
    date: Date,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

pub(super) fn written(date: Date, manifest: &Manifest) -> io::Result<StoredManifest> {
    let json = serde_json::to_vec(&Written { date, manifest })?;
    let digest = SipHasher13::new().hash(&json);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&json)?;
    Ok(StoredManifest {
        version: Version(digest.into()),
        body: gzip.finish()?.into(),
    })
}

pub(super) fn catalogue_of(stored: &StoredManifest) -> io::Result<Arc<Catalogue>> {
    let manifest = serde_json::from_slice(&unpacked(stored)?)?;
    Ok(Arc::new(Catalogue::new(manifest)))
}

pub(super) fn unpacked(stored: &StoredManifest) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    GzDecoder::new(&*stored.body).read_to_end(&mut json)?;
    Ok(json)
}
