"""Visual inspection of folders of pictures: read them, judge them, show the worst."""
