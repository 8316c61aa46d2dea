//! The peers of the comparisons and what is in their catalogs. Pure: a file is computed from the seed, its peer and its
//! place, so ten million of them are walked without being held.
//!
//! Names look as names do: trees of a few words with years in them, leaves of words and counters, some with blanks and accents.
//! A tenth of what a peer has, others have too, under the same name.

use p2p_proto::v1::FileEntry;

/// The share in which all files are.
pub(crate) const SHARE: &str = "compartido";
/// One file in this many is of the pool that the peers have in common.
const COMMON: u64 = 10;
/// How many peers have a file of the pool, about.
const COPIES: u64 = 10;
/// Files in one directory.
const SIBLINGS: u64 = 40;
/// The pool, as a peer of its own.
const POOL: u64 = u64::MAX;

/// Who there is, and what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Catalogs {
    seed: u64,
    peers: u64,
    each: u64,
}

impl Catalogs {
    /// So many files of so many peers, each with as many. Where they do not divide, fewer files.
    pub(crate) fn new(seed: u64, peers: u64, files: u64) -> Catalogs {
        let peers = peers.max(1);
        Catalogs { seed, peers, each: (files / peers).max(1) }
    }

    /// How many peers.
    pub(crate) fn peers(&self) -> u64 {
        self.peers
    }

    /// How many files each of them has.
    pub(crate) fn each(&self) -> u64 {
        self.each
    }

    /// How many files all of them have.
    pub(crate) fn files(&self) -> u64 {
        self.peers * self.each
    }

    /// All files of a peer, in order.
    pub(crate) fn of(&self, peer: u64) -> impl Iterator<Item = FileEntry> + Send + use<> {
        let catalogs = *self;
        (0..self.each).map(move |place| catalogs.file(peer, place))
    }

    /// The file at this place of a peer's catalog.
    pub(crate) fn file(&self, peer: u64, place: u64) -> FileEntry {
        let (owner, number) = self.owner(peer, place);
        let mut draw = Draw::new(&[self.seed, owner, number, 1]);
        let name = self.name_of(owner, number);
        let mut content = Vec::with_capacity(32);
        for _ in 0..4 {
            content.extend(draw.next().to_le_bytes());
        }
        // From some bytes to some GiB, small ones more often.
        let size = draw.next() >> (30 + draw.below(30));
        let modified_ms = 1_600_000_000_000 + (draw.next() >> 25).cast_signed();
        FileEntry { share: SHARE.to_owned(), name, content: content.into(), size, modified_ms }
    }

    /// The same file after it was changed for the `version`th time.
    pub(crate) fn changed(&self, peer: u64, place: u64, version: u64) -> FileEntry {
        let mut draw = Draw::new(&[self.seed, peer, place, version, 2]);
        let mut content = Vec::with_capacity(32);
        for _ in 0..4 {
            content.extend(draw.next().to_le_bytes());
        }
        FileEntry { content: content.into(), ..self.file(peer, place) }
    }

    /// The name of the file at this place of a peer's catalog.
    pub(crate) fn name(&self, peer: u64, place: u64) -> String {
        let (owner, number) = self.owner(peer, place);
        self.name_of(owner, number)
    }

    /// A file of anyone, drawn: its peer and its place.
    pub(crate) fn any(&self, draw: &mut Draw) -> (u64, u64) {
        (draw.below(self.peers), draw.below(self.each))
    }

    /// The `nth` stream of drawn numbers for this run.
    pub(crate) fn draw(&self, nth: u64) -> Draw {
        Draw::new(&[self.seed, nth, 3])
    }

    fn owner(&self, peer: u64, place: u64) -> (u64, u64) {
        let common = self.each / COMMON;
        let pool = self.files() / COMMON / COPIES;
        // Neighbours in the pool, which are all different: a name is once in a catalog.
        if place < common && common <= pool {
            return (POOL, (Draw::new(&[self.seed, peer, 4]).below(pool) + place) % pool);
        }
        (peer, place)
    }

    fn name_of(&self, owner: u64, number: u64) -> String {
        let mut dir = Draw::new(&[self.seed, owner, number / SIBLINGS, 5]);
        let mut leaf = Draw::new(&[self.seed, owner, number, 6]);
        let (top, extensions) = TREES[dir.index(TREES.len())];
        let word = |draw: &mut Draw| WORDS[draw.index(WORDS.len())];
        let (first, second, year) = (word(&mut dir), word(&mut dir), 2008 + dir.below(19));
        let (month, style) = (1 + dir.below(12), dir.below(5));
        // No two files of all have the same.
        let id = if owner == POOL { number } else { (owner + 1) * self.each + number };
        let (one, other) = (word(&mut leaf), word(&mut leaf));
        let extension = extensions[leaf.index(extensions.len())];
        let stem = match style {
            0 => format!("{one}_{id:08}"),
            1 => format!("{one}-{other}-{}", in_base_36(id)),
            2 => format!("{one} {other} ({id})"),
            3 => format!("{:08x}{}", leaf.next() >> 32, in_base_36(id)),
            _ => format!("{year}{month:02}{:02}_{one}_{}", 1 + leaf.below(28), in_base_36(id)),
        };
        format!("{top}/{first}-{second}/{year}-{month:02}/{stem}.{extension}")
    }
}

/// What a peer calls itself.
pub(crate) fn peer_name(peer: u64) -> String {
    format!("pc-{:05}", peer + 1)
}

fn in_base_36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// Numbers that look random and come out the same each time (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Draw(u64);

impl Draw {
    fn new(key: &[u64]) -> Draw {
        let mut draw = Draw(0);
        for part in key {
            draw.0 ^= *part;
            draw.0 = draw.next();
        }
        draw
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of the first so many.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn index(&mut self, len: usize) -> usize {
        // Of a length that fits.
        self.below(len as u64) as usize
    }
}

/// Where things are kept, and what they end with.
const TREES: [(&str, &[&str]); 12] = [
    ("datasets", &["csv", "parquet", "json", "npz"]),
    ("datasets/imágenes", &["jpg", "jpg", "png", "webp"]),
    ("modelos", &["safetensors", "onnx", "bin", "json"]),
    ("fotos", &["JPG", "JPG", "CR2", "mp4"]),
    ("clases", &["pdf", "pptx", "mp4", "ipynb"]),
    ("papers", &["pdf", "tex", "bib"]),
    ("builds", &["deb", "tar.gz", "so", "log"]),
    ("backups/equipos", &["tar.zst", "img", "sha256"]),
    ("home/proyectos", &["rs", "py", "md", "toml"]),
    ("simulaciones", &["h5", "vtk", "dat", "log"]),
    ("música", &["flac", "mp3", "cue"]),
    ("genomas", &["fastq.gz", "bam", "vcf", "bai"]),
];

const WORDS: [&str; 96] = [
    "alfa",
    "ampliado",
    "anexo",
    "archivo",
    "aula",
    "balance",
    "base",
    "beta",
    "borrador",
    "calibrado",
    "cámara",
    "canal",
    "captura",
    "ciudad",
    "cluster",
    "control",
    "copia",
    "corpus",
    "corte",
    "curso",
    "datos",
    "delta",
    "demo",
    "diario",
    "dron",
    "ejemplo",
    "ensayo",
    "entrega",
    "escena",
    "espectro",
    "estudio",
    "evento",
    "examen",
    "export",
    "filtrado",
    "final",
    "frame",
    "fuente",
    "galaxia",
    "gamma",
    "gráfico",
    "grupo",
    "híbrido",
    "imagen",
    "informe",
    "inicial",
    "kernel",
    "laboratorio",
    "lectura",
    "lente",
    "lote",
    "mapa",
    "marzo",
    "medida",
    "mezcla",
    "modelo",
    "muestra",
    "neutro",
    "nodo",
    "notas",
    "octubre",
    "onda",
    "original",
    "paisaje",
    "panel",
    "parcela",
    "partida",
    "piloto",
    "práctica",
    "proyecto",
    "prueba",
    "puerto",
    "radar",
    "raíz",
    "reciente",
    "red",
    "registro",
    "resumen",
    "retrato",
    "revisado",
    "sensor",
    "serie",
    "sesión",
    "síntesis",
    "sonda",
    "taller",
    "tarea",
    "tensor",
    "tesis",
    "torre",
    "tráfico",
    "trama",
    "turno",
    "validado",
    "versión",
    "zona",
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use p2p_content::FileName;

    use super::*;

    #[test]
    fn a_catalog_comes_out_the_same_and_has_each_name_once() {
        let catalogs = Catalogs::new(7, 20, 20_000);
        assert_eq!((catalogs.files(), catalogs.each()), (20_000, 1000));
        let mut holders: BTreeMap<String, u32> = BTreeMap::new();
        for peer in 0..catalogs.peers() {
            let names: BTreeSet<String> = catalogs.of(peer).map(|file| file.name).collect();
            assert_eq!(names.len() as u64, catalogs.each(), "a name is twice in the catalog of {peer}");
            for name in names {
                FileName::parse(&name).unwrap();
                *holders.entry(name).or_default() += 1;
            }
        }
        let common = holders.values().filter(|count| **count > 1).count();
        assert!((100..=200).contains(&common), "{common} names are with several peers");
        assert_eq!(catalogs.file(3, 500), Catalogs::new(7, 20, 20_000).file(3, 500));
        assert_ne!(catalogs.file(3, 500).name, Catalogs::new(8, 20, 20_000).file(3, 500).name);
        assert_eq!(catalogs.file(3, 500).name, catalogs.name(3, 500));
    }

    #[test]
    fn who_has_the_same_name_of_the_pool_has_the_same_content() {
        let catalogs = Catalogs::new(7, 20, 20_000);
        let mut contents = BTreeMap::new();
        for peer in 0..catalogs.peers() {
            for file in catalogs.of(peer) {
                let first = contents.entry(file.name).or_insert_with(|| file.content.clone());
                assert_eq!(*first, file.content);
            }
        }
        assert!((contents.len() as u64) < catalogs.files());
    }

    #[test]
    fn a_lone_peer_has_nothing_in_common_with_anyone() {
        let catalogs = Catalogs::new(1, 1, 5000);
        let names: BTreeSet<String> = catalogs.of(0).map(|file| file.name).collect();
        assert_eq!(names.len(), 5000);
    }

    #[test]
    fn a_change_changes_the_content_alone() {
        let catalogs = Catalogs::new(1, 2, 100);
        let (before, after) = (catalogs.file(1, 7), catalogs.changed(1, 7, 1));
        assert_ne!(before.content, after.content);
        assert_ne!(after.content, catalogs.changed(1, 7, 2).content);
        assert_eq!((before.name, before.size), (after.name, after.size));
    }
}
