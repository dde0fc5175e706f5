use rand::seq::SliceRandom;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// An item of the sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its title.
    pub title: String,
    /// Its three SID tokens.
    pub tokens: [String; 3],
    /// Its brand.
    pub brand: &'static str,
    /// Product family: the first token.
    pub family: usize,
    /// Place within the family: the second and third token.
    pub place: usize,
}

impl Item {
    /// The SID.
    pub fn sid(&self) -> String {
        self.tokens.concat()
    }
}

pub(super) const FAMILIES: usize = 24;
pub(super) const PLACES: usize = 10;

const PRODUCTS: [&str; FAMILIES] = [
    "Hex Bolt",
    "Lock Nut",
    "Flat Washer",
    "Wood Screw",
    "Drill Bit",
    "Tap Set",
    "Cutting Oil",
    "Shop Towel",
    "Safety Glasses",
    "Work Glove",
    "Dust Mask",
    "Ear Plug",
    "Duct Tape",
    "Cable Tie",
    "Heat Shrink Tube",
    "Wire Connector",
    "Multimeter",
    "Soldering Iron",
    "Flux Pen",
    "Digital Caliper",
    "Steel Ruler",
    "Ball Bearing",
    "Timing Belt",
    "Machine Grease",
];
const VARIANTS: [&str; PLACES] = [
    "M3, Pack of 50",
    "M4, Pack of 50",
    "M5, 1/4\" Drive",
    "Large",
    "Small",
    "Heavy-Duty",
    "Stainless, Pack of 20",
    "Zinc Plated",
    "Editor's Choice",
    "Value Kit",
];
const BRANDS: [&str; 6] = ["Ironside", "Maker's Bench", "Northgate", "Pruitt & Sons", "Volt\"Pro\"", "Quayle"];

/// The catalogue: families of items, whose SIDs name family, half of the family and place. The last two items of the
/// last family share a SID, as items of real catalogues do.
pub(super) fn catalogue(seed: u64) -> Vec<Item> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // codes are not in order in real catalogues either
    let mut codes: Vec<usize> = (0..256).collect();
    codes.shuffle(&mut rng);
    let mut items = Vec::new();
    for (family, product) in PRODUCTS.iter().enumerate() {
        for (place, variant) in VARIANTS.iter().enumerate() {
            let brand = BRANDS[(family * 5 + place * 7) % BRANDS.len()];
            let last = family == FAMILIES - 1 && place == PLACES - 1;
            let shown = if last { place - 1 } else { place };
            let tokens = [
                format!("<a_{}>", codes[family]),
                format!("<b_{}>", codes[100 + shown / 5]),
                format!("<c_{}>", codes[200 + shown % 5]),
            ];
            items.push(Item { title: format!("{brand} {product} {variant}"), tokens, brand, family, place });
        }
    }
    items
}
