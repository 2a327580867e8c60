"""Other software that learns from tables with texts and pictures, and this one, on the same splits.

python -m benchmarks.peers --data=DIR --work=DIR [--tables=reviews,...] [--software=ours,...]
    [--seconds=N] [--text=FOLDER]

Each runs in a virtual environment of its own, `WORK/environments/<software>`, which is made where it is absent. All are
tested on the complete test rows, and on the same rows with every modality in turn emptied; none is told beforehand.

- reviews: whether a review recommends a piece of clothing, by text and title, and by age, rating, counts and categories
  (4,698 rows, with holes of their own), from DIR/clothing_reviews/reviews.csv;
- products: the class of a product of 33, by photo and title (6,600 rows), from DIR/product_pairs_upmc_layout;
- numerals: a digit, by six views of 6 to 240 numbers, 40 % of which are emptied in every split (2,000 rows), from
  DIR/uci_mfeat/mfeat.csv.

Pre-trained encoders: --text names the folder of a BERT in the form of Hugging Face, which all use that can. AutoGluon's
own are downloaded where it is not given. Pictures are learned from scratch by all where --text is given, for then there
may be no network.
"""
