"""Raw downloads to prepared datasets: `python -m data_prep.<dataset>`."""
