"""Are the dashboards' expressions answered, by a real Prometheus that scrapes a real stack?"""
