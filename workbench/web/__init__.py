"""What a web server for others needs: headers, and answers where there is nothing to show."""
