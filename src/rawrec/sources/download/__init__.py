"""What comes from elsewhere: pictures by address, datasets of the Hugging Face hub."""
